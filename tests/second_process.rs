//! A store that one process writes and another reads: `Redex::open_read_only` beside a writer that rolls journals, takes
//! checkpoints, seals segments, drops old ones, closes, opens again, and is killed.
//!
//! The test runs itself as the writer (`writer <dir> <life>`). The writer tells by a pipe, a line each, what was acknowledged as
//! durable, and when; the reader compares every byte and the order, and counts how soon it saw it. Not timed: the bound of
//! 10 ms is told by the harness's row `second-process`; here a bound ten times as wide holds for nine in ten.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redex::{FsyncPolicy, ReadError, ReadOnlyFile, ReadOnlyRedex, Redex, RedexFileConfig, TailEnd};

const CHANNELS: usize = 4;
/// Events that one life of the writer appends to each channel.
const EVENTS: u64 = 1500;
const LIVES: u64 = 6;
/// The channel that drops its oldest events, and how many it keeps.
const RETAINED: usize = 2;
const KEPT: u64 = 300;
/// A run that takes longer has failed.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What an event's bytes follow from; the life tells events apart that were lost and made again.
fn payload(channel: usize, seq: u64, life: u64) -> Vec<u8> {
    let len = match seq % 97 {
        0 => 40_000,
        n if n % 5 == 0 => n % 9,
        n => 20 + n * 29,
    };
    let mut bytes = vec![life as u8; len.min(1) as usize];
    bytes.extend((1..len).map(|i| (channel as u64 * 31 + seq * 7 + life * 101 + i) as u8));
    bytes
}

/// The life that an event says it is of.
fn life_of(payload: &[u8]) -> u64 {
    payload.first().copied().unwrap_or(0).into()
}

fn name(channel: usize) -> String {
    format!("channel/{channel}")
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("writer") {
        write(Path::new(&args[2]), args[3].parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("a_second_process_sees_what_the_first_made_durable: test");
        return ExitCode::SUCCESS;
    }
    a_second_process_sees_what_the_first_made_durable();
    println!("test a_second_process_sees_what_the_first_made_durable ... ok");
    ExitCode::SUCCESS
}

/// The writer's process. Odd lives end by a kill, so they go on until it comes.
fn write(dir: &Path, life: u64) {
    let redex = Redex::builder()
        .persistent_dir(dir)
        .shards(2)
        .journal_segment_bytes(1 << 20)
        .checkpoint_bytes(1 << 20)
        .build()
        .unwrap();
    let policies = [
        FsyncPolicy::EveryN(1),
        FsyncPolicy::EveryN(64),
        FsyncPolicy::Interval(Duration::from_millis(5)),
        FsyncPolicy::Never,
    ];
    let config = |policy| {
        let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(policy);
        config.with_segment_bytes(1 << 20)
    };
    let config = |channel: usize| match channel {
        RETAINED => config(policies[channel]).with_retention_max_events(KEPT).with_retention_hold(0),
        _ => config(policies[channel]),
    };
    let files: Vec<_> = (0..CHANNELS).map(|c| redex.open_file(name(c), config(c)).unwrap()).collect();
    let mut told = [0; CHANNELS];
    let mut out = std::io::stdout().lock();
    let mut tell = |told: &mut [u64; CHANNELS]| {
        let now = now_us();
        for (channel, file) in files.iter().enumerate() {
            let durable = file.durable();
            if durable > told[channel] {
                told[channel] = durable;
                writeln!(out, "{channel} {durable} {now}").unwrap();
            }
        }
    };
    for i in 0..EVENTS {
        for (channel, file) in files.iter().enumerate() {
            let seq = file.append(payload(channel, file.next_seq(), life)).wait().unwrap();
            if channel == 3 && seq % 200 == 0 {
                file.sync().wait().unwrap();
            }
        }
        tell(&mut told);
        if i % 100 == 0 {
            // Idle: only the witness tells of the last commit.
            std::thread::sleep(Duration::from_millis(6));
        }
    }
    if life % 2 == 1 {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    redex.close().wait().unwrap();
}

/// Of one channel, in order: what was durable, and when.
type Told = Vec<(u64, u64)>;

struct Writer {
    process: Child,
    told: Arc<Mutex<Vec<Told>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(dir: &Path, life: u64) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program)
            .args(["writer", dir.to_str().unwrap(), &life.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told = Arc::new(Mutex::new(vec![Vec::new(); CHANNELS]));
        let theirs = told.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut numbers = line.split(' ').map(|number| number.parse::<u64>());
                // A line that the kill has cut off tells nothing.
                let (Some(Ok(channel)), Some(Ok(end)), Some(Ok(at))) = (numbers.next(), numbers.next(), numbers.next())
                else {
                    continue;
                };
                theirs.lock().unwrap()[channel as usize].push((end, at));
            }
        });
        Self { process, told, reader }
    }

    fn durable(&self, channel: usize) -> u64 {
        self.told.lock().unwrap()[channel].last().map_or(0, |(end, _)| *end)
    }
}

/// What the reader has of a channel.
struct Followed {
    tail: redex::TailResults,
    file: ReadOnlyFile,
    next: u64,
    lives: Vec<u64>,
    /// When each event was seen.
    seen: Vec<u64>,
}

impl Followed {
    fn open(reader: &ReadOnlyRedex, channel: usize) -> Option<Self> {
        let file = reader.open_file(name(channel)).ok()?;
        Some(Self { tail: file.tail(0), file, next: 0, lives: Vec::new(), seen: Vec::new() })
    }

    /// Reads from the head on, while the writer takes files away: what is not there any more is said to be dropped.
    fn read_all(&self) {
        match self.file.read_range(0, u64::MAX).wait() {
            Ok(events) => assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq)),
            Err(ReadError::Trimmed { from, to, .. }) => assert!(from < to && to <= self.file.head_seq()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes what is there; checks sequence and bytes.
    fn take(&mut self, channel: usize) {
        if channel == RETAINED {
            self.read_all();
        }
        while self.next < self.file.published() {
            let event = match self.tail.next_wait().unwrap() {
                Err(TailEnd::Lagged { from, to, .. }) if channel == RETAINED => {
                    assert_eq!(from, self.next);
                    let last = self.lives.last().copied().unwrap_or(0);
                    self.lives.resize(to as usize, last);
                    self.seen.resize(to as usize, now_us());
                    self.next = to;
                    continue;
                }
                event => event.unwrap(),
            };
            assert_eq!(event.seq, self.next);
            let life = if event.payload.is_empty() {
                self.lives.last().copied().unwrap_or(0)
            } else {
                life_of(&event.payload)
            };
            assert!(life < LIVES && self.lives.last().is_none_or(|last| *last <= life), "lives come in order");
            assert!(event.payload == payload(channel, event.seq, life), "channel {channel}, event {}", event.seq);
            self.lives.push(life);
            self.seen.push(now_us());
            self.next += 1;
        }
    }
}

fn a_second_process_sees_what_the_first_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut reader: Option<ReadOnlyRedex> = None;
    let mut followed: Vec<Option<Followed>> = (0..CHANNELS).map(|_| None).collect();
    let mut latencies = Vec::new();
    for life in 0..LIVES {
        let mut writer = Writer::start(dir.path(), life);
        // A kill comes in the middle of a life, or when all was written.
        let kill_at = if life % 4 == 1 { EVENTS / 2 } else { EVENTS };
        let mut first = [None; CHANNELS];
        loop {
            assert!(begun.elapsed() < TIME_MAX, "life {life} comes to no end");
            let mut appended = 0;
            reader = reader.or_else(|| Redex::open_read_only(dir.path()).ok());
            if let Some(reader) = &reader {
                for (channel, followed) in followed.iter_mut().enumerate() {
                    if followed.is_none() {
                        *followed = Followed::open(reader, channel);
                    }
                    let Some(followed) = followed else { continue };
                    first[channel].get_or_insert(followed.next);
                    followed.take(channel);
                    appended = appended.max(followed.lives.iter().rev().take_while(|of| **of == life).count() as u64);
                }
            }
            if life % 2 == 1 && appended >= kill_at {
                writer.process.kill().unwrap();
            }
            if writer.process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        let status = writer.process.wait().unwrap();
        assert_eq!(status.success(), life % 2 == 0, "{status}");
        let durable: Vec<u64> = (0..CHANNELS).map(|channel| writer.durable(channel)).collect();
        let told = writer.told.clone();
        writer.reader.join().unwrap();
        for (channel, followed) in followed.iter_mut().enumerate() {
            let followed = followed.as_mut().unwrap();
            // After a close everything is there. After a kill the last commits may have no witness until the next opening.
            if life % 2 == 0 {
                followed.file.wait_published(durable[channel].saturating_sub(1)).wait().unwrap();
            }
            followed.take(channel);
            let mut at = first[channel].unwrap_or(0);
            for (end, told_us) in &told.lock().unwrap()[channel] {
                // Of what was there when this reader came, the time says nothing.
                if *end > at && *end <= followed.next {
                    latencies.push(followed.seen[*end as usize - 1].saturating_sub(*told_us));
                    at = *end;
                }
            }
        }
    }
    let reader = reader.unwrap();
    for (channel, followed) in followed.iter().enumerate() {
        let followed = followed.as_ref().unwrap();
        let again = reader.open_file(name(channel)).unwrap().read_range(0, u64::MAX).wait().unwrap();
        // The witness of a killed writer's last commit may have come since.
        assert!(again.last().is_some_and(|event| event.seq + 1 >= followed.next));
        assert_eq!(again[0].seq > 0, channel == RETAINED, "retention drops what is old");
        assert!(followed.next >= EVENTS * LIVES / 2, "{}", followed.next);
        for event in again.iter().filter(|event| event.seq < followed.next) {
            assert!(event.payload == payload(channel, event.seq, followed.lives[event.seq as usize]));
        }
    }
    // A writer sees the same, and not less.
    drop(reader);
    let redex = Redex::open(dir.path()).unwrap();
    for (channel, followed) in followed.iter().enumerate() {
        let file = redex
            .open_file(name(channel), RedexFileConfig::default().with_persistent(true).with_segment_bytes(1 << 20));
        assert!(file.unwrap().next_seq() >= followed.as_ref().unwrap().next);
    }
    redex.close().wait().unwrap();
    latencies.sort_unstable();
    let at = |percent: usize| Duration::from_micros(latencies[(latencies.len() - 1) * percent / 100]);
    println!(
        "{} marks seen: median {:?}, p90 {:?}, p99 {:?}, worst {:?}",
        latencies.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert!(latencies.len() > 1000, "{}", latencies.len());
    assert!(at(90) < Duration::from_millis(100), "nine in ten within ten times the bound");
}
