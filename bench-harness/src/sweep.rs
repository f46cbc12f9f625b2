//! `sweep`: durable appends with more and more in flight, and where more of them brings nothing but latency.
//!
//! One thread, one channel, the closed loop of the workload `durable`; 1, 2, 4 and so on in flight. The whole row of numbers is gone
//! through [`ROUNDS`] times, so that a machine that changes meanwhile changes all of them; each time in a fresh store.
//!
//! The **knee** is the number in flight with the greatest *power*: events a second over the median latency (L. Kleinrock, "Power
//! and deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979). Below it twice as many
//! in flight bring more rate than they cost latency; above it, less. Beside it stands the least number in flight that
//! has 90 % of the best rate: what a program wants that does not mind the latency.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use redex::FsyncPolicy;
use serde::{Deserialize, Serialize};

use crate::args::SweepArgs;
use crate::load::Payloads;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::readback;
use crate::report::figures::Figures;
use crate::report::plot::{Line, Lines};
use crate::report::{self, units};
use crate::sample::{Turn, Turns};
use crate::scratch::Scratch;
use crate::store;
use crate::workload::closed_loop::ClosedLoop;

const CHANNEL: &str = "bench/sweep";

/// Times that all numbers in flight are gone through.
const ROUNDS: u32 = 3;

/// Part of a turn that comes before it and is not measured: a fresh store writes its spare journal segments.
const WARM_UP_SHARE: f64 = 0.25;

/// Share of the best rate that counts as all of it.
const NEARLY_ALL: f64 = 0.9;

/// The figures of a sweep; `sweep.json` has them under these names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// Where it was measured.
    pub(crate) machine: Machine,
    /// Size of an event, bytes.
    pub(crate) payload_bytes: u64,
    /// In order of `in_flight`.
    pub(crate) points: Vec<Point>,
    /// In flight where events per second over median latency is greatest.
    pub(crate) knee_in_flight: u64,
    /// Least number in flight with 90 % of the best rate.
    pub(crate) nearly_all_in_flight: u64,
}

/// One number in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Appends that are not acknowledged, at the most.
    pub(crate) in_flight: u64,
    /// Median over the turns.
    pub(crate) events_per_s: f64,
    /// Median over the turns of the median latency.
    pub(crate) p50_ns: u64,
    /// Over all turns.
    pub(crate) p99_ns: u64,
    /// Events a second of every turn.
    pub(crate) turn_events_per_s: Vec<f64>,
    /// Median latency of every turn.
    pub(crate) turn_p50_ns: Vec<u64>,
}

impl Point {
    fn of(in_flight: u64, turns: &Turns) -> Self {
        Self {
            in_flight,
            events_per_s: turns.rate(),
            p50_ns: turns.p50(),
            p99_ns: turns.latencies().at(0.99),
            turn_events_per_s: turns.rates(),
            turn_p50_ns: turns.p50s(),
        }
    }

    fn power(&self) -> f64 {
        self.events_per_s / self.p50_ns.max(1) as f64
    }
}

impl Sweep {
    /// Finds knee and saturation.
    pub(crate) fn new(machine: Machine, payload_bytes: u64, points: Vec<Point>) -> Self {
        let knee = points.iter().max_by(|a, b| a.power().total_cmp(&b.power()));
        let best = points.iter().map(|point| point.events_per_s).fold(0.0, f64::max);
        let enough = points.iter().find(|point| point.events_per_s >= NEARLY_ALL * best);
        let [knee_in_flight, nearly_all_in_flight] =
            [knee, enough].map(|point| point.map_or(0, |point| point.in_flight));
        Self { machine, payload_bytes, points, knee_in_flight, nearly_all_in_flight }
    }

    /// The figures of an earlier sweep; `None` if there are none that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// The table on the terminal.
    fn table(&self) -> Vec<String> {
        let mut lines = vec![format!("{:>9} {:>10} {:>9} {:>9}", "in flight", "events/s", "p50", "p99")];
        lines.extend(self.points.iter().map(|point| {
            let cells = cells(point);
            let mark = self.mark(point);
            format!("{:>9} {:>10} {:>9} {:>9}  {mark}", cells[0], cells[1], cells[2], cells[3]).trim_end().to_owned()
        }));
        lines
    }

    /// What a line of the table says of its number in flight.
    fn mark(&self, point: &Point) -> &'static str {
        match (point.in_flight == self.knee_in_flight, point.in_flight == self.nearly_all_in_flight) {
            (true, true) => "knee; 90 % of the best rate",
            (true, false) => "knee",
            (false, true) => "90 % of the best rate",
            (false, false) => "",
        }
    }

    /// The section of a report.
    pub(crate) fn section(&self, figures: &mut Figures) -> anyhow::Result<String> {
        figures.begin("sweep", "How much in flight");
        let size = units::size(self.payload_bytes as f64);
        let head = "<tr><th>in flight</th><th>events/s</th><th>p50</th><th>p99</th><th></th></tr>";
        let line = |point: &Point| {
            let [in_flight, rate, p50, p99] = cells(point);
            format!(
                "<tr><td>{in_flight}</td><td>{rate}</td><td>{p50}</td><td>{p99}</td><td>{}</td></tr>",
                self.mark(point)
            )
        };
        let table: String = self.points.iter().map(line).collect();
        let legend = ["p50", "p99"].iter().enumerate().map(|(color, name)| (color, (*name).to_owned())).collect();
        let rate = figures.add(
            &self.rates(),
            Vec::new(),
            None,
            &format!("Durable events of {size} per second, by how many are in flight."),
        )?;
        let latency = figures.add(
            &self.latencies(),
            legend,
            None,
            &format!("Latency of durable events of {size}, by how many are in flight."),
        )?;
        Ok(format!(
            "<h2>How much in flight</h2><p>Durable appends of {size} from one thread. With more in flight, one trip to the disk serves \
             more of them, until it takes longer than it serves. The <b>knee</b> is where events per second over median latency is \
             greatest ({knee} in flight); {enough} in flight have 90 % of the best rate.</p>\
             {rate}{latency}<div class=\"wide\"><table><thead>{head}</thead><tbody>{table}</tbody></table></div>",
            knee = self.knee_in_flight,
            enough = self.nearly_all_in_flight,
        ))
    }

    fn rates(&self) -> Lines {
        let y = |point: &Point| point.events_per_s;
        self.lines(vec![self.line(0, y)], "events per second (log scale)", units::count)
    }

    fn latencies(&self) -> Lines {
        let lines = vec![self.line(0, |point| point.p50_ns as f64), self.line(1, |point| point.p99_ns as f64)];
        self.lines(lines, "latency (log scale)", units::time)
    }

    fn line(&self, color: usize, y: impl Fn(&Point) -> f64) -> Line {
        Line { points: self.points.iter().map(|point| (point.in_flight as f64, y(point))).collect(), color }
    }

    fn lines(&self, lines: Vec<Line>, y_title: &'static str, unit: fn(f64) -> String) -> Lines {
        let mark = Some((self.knee_in_flight as f64, format!("knee: {} in flight", self.knee_in_flight)));
        Lines { lines, mark, x_title: "durable appends in flight (log scale)", y_title, unit }
    }
}

fn cells(point: &Point) -> [String; 4] {
    [
        point.in_flight.to_string(),
        units::count(point.events_per_s),
        units::time(point.p50_ns as f64),
        units::time(point.p99_ns as f64),
    ]
}

/// Sweeps as `args` say.
pub(crate) fn run(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    let out = report::create_dir(&args.out)?;
    let scratch = Scratch::new(args.place.dir.as_deref())?;
    let machine = Machine::of(scratch.path());
    let payloads = Payloads::new(args.seed, args.payload as usize);
    let numbers = numbers(args.max_in_flight);
    let time = Duration::from_secs_f64(args.seconds) / ROUNDS;
    let mut turns = vec![Turns::default(); numbers.len()];
    let progress = Progress::new(u64::from(ROUNDS) * numbers.len() as u64);
    for _ in 0..ROUNDS {
        for (in_flight, turns) in numbers.iter().zip(&mut turns) {
            progress.doing(format!("sweep, {in_flight} in flight"));
            turns.push(turn(args, &scratch, &payloads, *in_flight, time)?);
            progress.step();
        }
    }
    progress.finish();
    let points = numbers.iter().zip(&turns).map(|(in_flight, turns)| Point::of(*in_flight as u64, turns)).collect();
    let sweep = Sweep::new(machine, u64::from(args.payload), points);
    sweep.table().iter().for_each(|line| println!("{line}"));
    println!("report: {}", report::write_sweep(&out, &sweep)?.display());
    Ok(ExitCode::SUCCESS)
}

/// 1, 2, 4 and so on.
fn numbers(max: u32) -> Vec<usize> {
    (0..).map(|power| 1_usize << power).take_while(|number| *number <= max as usize).collect()
}

/// One turn in a fresh store, whose events are sampled after a reopen.
fn turn(
    args: &SweepArgs,
    scratch: &Scratch,
    payloads: &Payloads,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Turn> {
    let dir = scratch.place("store")?;
    let redex = store::open(&dir, args.place.backend)?;
    let files = [store::channel(&redex, CHANNEL, FsyncPolicy::Never)?];
    let mut appends = ClosedLoop::new(&files, payloads);
    appends.turn(in_flight, time.mul_f64(WARM_UP_SHARE))?;
    let turn = appends.turn(in_flight, time)?;
    let acknowledged = appends.acknowledged();
    drop(files);
    store::close(redex)?;
    readback::sample(&dir, args.place.backend, CHANNEL, acknowledged, args.seed, |seq| payloads.get(seq))?;
    scratch.place("store")?;
    Ok(turn)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn point(in_flight: u64, events_per_s: f64, p50_us: u64) -> Point {
        Point {
            in_flight,
            events_per_s,
            p50_ns: p50_us * 1000,
            p99_ns: p50_us * 3000,
            turn_events_per_s: vec![events_per_s; 3],
            turn_p50_ns: vec![p50_us * 1000; 3],
        }
    }

    /// A device that serves 16 at once in 100 us, and then in proportion.
    pub(crate) fn example() -> Sweep {
        let points = vec![
            point(1, 10_000.0, 100),
            point(4, 40_000.0, 100),
            point(16, 155_000.0, 103),
            point(64, 160_000.0, 400),
            point(256, 170_000.0, 1506),
        ];
        Sweep::new(Machine::default(), 256, points)
    }

    #[test]
    fn the_knee_is_where_latency_begins_to_grow_faster_than_the_rate() {
        let sweep = example();
        assert_eq!((sweep.knee_in_flight, sweep.nearly_all_in_flight), (16, 16));
        let table = sweep.table();
        assert!(table[3].ends_with("knee; 90 % of the best rate"), "{table:?}");
    }

    #[test]
    fn a_rate_that_goes_on_growing_is_had_beyond_the_knee() {
        let points = vec![point(1, 100.0, 10), point(2, 190.0, 11), point(4, 250.0, 30), point(8, 600.0, 200)];
        let sweep = Sweep::new(Machine::default(), 256, points);
        assert_eq!((sweep.knee_in_flight, sweep.nearly_all_in_flight), (2, 8));
    }

    #[test]
    fn numbers_in_flight_double_up_to_the_most() {
        assert_eq!(numbers(10), [1, 2, 4, 8]);
        assert_eq!(numbers(1), [1]);
    }

    #[test]
    fn what_is_written_is_read() {
        let json = serde_json::to_vec(&example()).unwrap();
        let read: Sweep = serde_json::from_slice(&json).unwrap();
        assert_eq!((read.knee_in_flight, read.points.len()), (16, 5));
    }
}
