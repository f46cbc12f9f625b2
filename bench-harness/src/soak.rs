//! `soak`: mixed load with readers, retention and sealing for as long as told, and at the end a judgement: memory, descriptors,
//! mappings and disk use are flat, and everything that was read is what was appended.
//!
//! Two threads append at a rate, under policies that differ by channel; segments are small and channels bounded, so that segments
//! are sealed and dropped all the time. One thread follows each bounded channel from its head, one reads ranges and maps what is sealed.
//!
//! Flat means: over what comes after the first quarter, which is warm-up, the straight line that fits the samples best
//! rises by no more than the tolerance of the row, whatever the samples do around it.

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig, TailEnd};

use crate::args::SoakArgs;
use crate::load::{fill, mix, splitmix64};
use crate::scratch::Scratch;
use crate::store;

const CHANNELS: u64 = 16;
/// Payload bytes that a channel keeps, and of a segment.
const KEPT_BYTES: u64 = 8 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;
const SAMPLE_PERIOD: Duration = Duration::from_secs(10);
/// Fewer samples behind the warm-up say nothing of a trend.
const SAMPLES_MIN: usize = 12;
/// Events of one read.
const READ_EVENTS: u64 = 300;

/// What all threads see.
struct Soak {
    redex: Redex,
    files: Vec<RedexFile>,
    seed: u64,
    /// Events a second.
    rate: f64,
    over: AtomicBool,
    appended: AtomicU64,
    read: AtomicU64,
    lagged: AtomicU64,
}

/// Runs what `args` say.
pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::new(args.place.dir.as_deref())?;
    let dir = scratch.place("store")?;
    let redex = store::open(&dir, args.place.backend)?;
    let files = (0..CHANNELS).map(|channel| open(&redex, channel)).collect::<anyhow::Result<Vec<_>>>()?;
    let soak = Soak {
        redex,
        files,
        seed: args.seed,
        rate: args.rate,
        over: AtomicBool::new(false),
        appended: AtomicU64::new(0),
        read: AtomicU64::new(0),
        lagged: AtomicU64::new(0),
    };
    let samples = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| ending(&soak, || append(&soak, 0))),
            scope.spawn(|| ending(&soak, || append(&soak, 1))),
            scope.spawn(|| ending(&soak, || follow(&soak))),
            scope.spawn(|| ending(&soak, || read(&soak))),
        ];
        let samples = sample(&soak, &dir, Duration::from_secs_f64(args.minutes * 60.0));
        soak.over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no thread of the soak panics")?;
        }
        samples
    })?;
    let Soak { redex, files, appended, read, lagged, .. } = soak;
    let clean = files.iter().all(|file| file.verify().wait().is_clean());
    drop(files);
    store::close(redex)?;
    let flat = judge(&samples);
    println!(
        "soak: {:.1} min, {} events appended, {} read and compared, {} skipped by retention; {}; on disk {}",
        args.minutes,
        appended.into_inner(),
        read.into_inner(),
        lagged.into_inner(),
        if flat { "flat" } else { "NOT FLAT" },
        if clean { "everything verifies" } else { "DAMAGED" },
    );
    Ok(ExitCode::from(u8::from(!(flat && clean))))
}

fn open(redex: &Redex, channel: u64) -> anyhow::Result<RedexFile> {
    let policy = match channel % 3 {
        0 => FsyncPolicy::Never,
        1 => FsyncPolicy::EveryN(100),
        _ => FsyncPolicy::Interval(Duration::from_millis(20)),
    };
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(policy);
    let config = config.with_segment_bytes(SEGMENT_BYTES).with_retention_max_bytes(KEPT_BYTES);
    store::channel_with(redex, &format!("soak/{channel}"), config)
}

/// Whoever fails ends the others.
fn ending(soak: &Soak, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let result = work();
    if result.is_err() {
        soak.over.store(true, Ordering::Relaxed);
    }
    result
}

impl Soak {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn payload(&self, bytes: &mut Vec<u8>, channel: u64, seq: u64) {
        let mut state = mix(mix(self.seed ^ channel) ^ seq);
        let size = if splitmix64(&mut state).is_multiple_of(200) { 20_000 } else { 400 };
        bytes.resize((splitmix64(&mut state) % size) as usize, 0);
        fill(bytes, state);
    }

    fn check(&self, expected: &mut Vec<u8>, channel: u64, seq: u64, found: &[u8]) -> anyhow::Result<()> {
        self.payload(expected, channel, seq);
        ensure!(found == &expected[..], "channel {channel}, event {seq} is not what was appended");
        self.read.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Appends to every second channel, at half of the rate; one event in a hundred is awaited until it is durable.
fn append(soak: &Soak, half: u64) -> anyhow::Result<()> {
    let (mut bytes, mut random, begun) = (Vec::new(), mix(soak.seed ^ half), Instant::now());
    for count in 0u64.. {
        let channel = 2 * (splitmix64(&mut random) % (CHANNELS / 2)) + half;
        let file = &soak.files[channel as usize];
        soak.payload(&mut bytes, channel, file.next_seq());
        let append = if count.is_multiple_of(100) { file.append_durable(&bytes) } else { file.append(&bytes) };
        append.wait().context("appending")?;
        soak.appended.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs_f64(count as f64 / (soak.rate / 2.0));
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early.max(Duration::from_millis(1)));
        }
        if soak.is_over() {
            break;
        }
    }
    Ok(())
}

/// Follows all channels in turns, live.
fn follow(soak: &Soak) -> anyhow::Result<()> {
    let mut expected = Vec::new();
    let mut next = vec![0; CHANNELS as usize];
    while !soak.is_over() {
        for (channel, file) in soak.files.iter().enumerate() {
            let mut tail = file.tail(next[channel]);
            while next[channel] < file.published() && !soak.is_over() {
                match tail.next_wait() {
                    Some(Ok(event)) => {
                        ensure!(
                            event.seq == next[channel],
                            "channel {channel}: {} comes behind {}",
                            event.seq,
                            next[channel]
                        );
                        soak.check(&mut expected, channel as u64, event.seq, &event.payload)?;
                        next[channel] += 1;
                    }
                    Some(Err(TailEnd::Lagged { from, to, .. })) if from == next[channel] => {
                        soak.lagged.fetch_add(to - from, Ordering::Relaxed);
                        next[channel] = to;
                    }
                    other => bail!("the tail of channel {channel} at {}: {other:?}", next[channel]),
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Reads ranges anywhere, now and then with pauses.
fn read(soak: &Soak) -> anyhow::Result<()> {
    let (mut expected, mut random) = (Vec::new(), mix(soak.seed ^ 99));
    while !soak.is_over() {
        let channel = splitmix64(&mut random) % CHANNELS;
        let file = &soak.files[channel as usize];
        let (head, end) = (file.head_seq(), file.published());
        let start = head + splitmix64(&mut random) % (end - head).max(1);
        let events = file.read_range(start, start + READ_EVENTS).wait().context("reading")?;
        for event in &events {
            soak.check(&mut expected, channel, event.seq, &event.payload)?;
        }
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        is_all_of(&seqs, start..end.min(start + READ_EVENTS), file.head_seq())
            .with_context(|| format!("channel {channel}"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a read came to all of a range: without a gap, but for what was dropped from its beginning meanwhile, below `head`.
fn is_all_of(seqs: &[u64], range: Range<u64>, head: u64) -> anyhow::Result<()> {
    let first = seqs.first().copied().unwrap_or(range.end);
    let from = range.start.max(first.min(head));
    for (seq, expected) in seqs.iter().zip(from..) {
        ensure!(*seq == expected, "event {seq} came instead of {expected}");
    }
    let end = from + seqs.len() as u64;
    ensure!(end >= range.end, "a read of {range:?} ended at {end}, and the head is {head}");
    Ok(())
}

/// One moment's figures, in the order of [`ROWS`].
type Sample = [f64; ROWS.len()];

/// Name, and by how much it may rise beyond a twentieth of its mean.
const ROWS: [(&str, f64); 4] = [
    ("resident memory, MiB", 8.0),
    ("descriptors", 4.0),
    ("mappings", 32.0),
    // Retention keeps up to a quarter more, and frees by whole segments.
    ("disk, MiB", 40.0),
];

const SLOPE_SHARE: f64 = 0.05;

fn sample(soak: &Soak, dir: &Path, lasts: Duration) -> anyhow::Result<Vec<Sample>> {
    let begun = Instant::now();
    let (mut samples, mut before) = (Vec::new(), (0, 0));
    while begun.elapsed() < lasts && !soak.is_over() {
        let due = SAMPLE_PERIOD * (samples.len() as u32 + 1);
        while begun.elapsed() < due.min(lasts) && !soak.is_over() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let taken = take(dir).context("reading this process's figures")?;
        let now = (soak.appended.load(Ordering::Relaxed), soak.read.load(Ordering::Relaxed));
        let [memory, descriptors, mappings, disk] = taken;
        println!(
            "{:>6.0} s: {memory:.1} MiB resident, {descriptors} descriptors, {mappings} mappings, {disk:.0} MiB on disk, \
             {:.0} appends/s, {:.0} reads/s",
            begun.elapsed().as_secs_f64(),
            (now.0 - before.0) as f64 / SAMPLE_PERIOD.as_secs_f64(),
            (now.1 - before.1) as f64 / SAMPLE_PERIOD.as_secs_f64(),
        );
        before = now;
        samples.push(taken);
    }
    Ok(samples)
}

fn take(dir: &Path) -> anyhow::Result<Sample> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rss_kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    let mappings = std::fs::read_to_string("/proc/self/maps")?.lines().count();
    let disk = used_bytes(dir);
    Ok([
        rss_kib.context("VmRSS in /proc/self/status")? / 1024.0,
        descriptors as f64,
        mappings as f64,
        disk as f64 / f64::from(1 << 20),
    ])
}

/// Bytes that the files below `dir` take; what vanishes meanwhile takes none.
fn used_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => used_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Whether every row is flat; says what each does.
fn judge(samples: &[Sample]) -> bool {
    let judged = &samples[samples.len() / 4..];
    if judged.len() < SAMPLES_MIN {
        println!("too short to judge: {} samples behind the warm-up, {SAMPLES_MIN} are needed", judged.len());
        return false;
    }
    let mut flat = true;
    for (row, (name, allowed)) in ROWS.iter().enumerate() {
        let values: Vec<f64> = judged.iter().map(|sample| sample[row]).collect();
        let (mean, rise) = (values.iter().sum::<f64>() / values.len() as f64, rise(&values));
        let most = allowed + SLOPE_SHARE * mean;
        let fits = rise <= most;
        flat &= fits;
        println!(
            "{name}: mean {mean:.1}, rises by {rise:.1} ({most:.1} allowed){}",
            if fits { "" } else { ": NOT FLAT" }
        );
    }
    flat
}

/// By how much the straight line through the values that fits best rises from the first to the last.
fn rise(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let (mean_at, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let at = |index: usize| index as f64 - mean_at;
    let covariance: f64 = values.iter().enumerate().map(|(index, value)| at(index) * (value - mean)).sum();
    let variance: f64 = (0..values.len()).map(|index| at(index) * at(index)).sum();
    covariance / variance * (count - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(usize) -> f64) -> Vec<Sample> {
        (0..40).map(|index| [memory(index), 20.0, 100.0, 160.0]).collect()
    }

    #[test]
    fn a_leak_is_not_flat_and_noise_and_warm_up_are() {
        assert!(judge(&samples(|index| if index < 8 { 10.0 * index as f64 } else { 100.0 + (index % 3) as f64 })));
        assert!(!judge(&samples(|index| 100.0 + index as f64)), "30 MiB in the judged time");
        assert!(!judge(&samples(|_| 100.0)[..10]), "too short");
        let descriptors: Vec<Sample> = (0..40).map(|index| [100.0, 20.0 + index as f64 / 2.0, 100.0, 160.0]).collect();
        assert!(!judge(&descriptors));
    }

    #[test]
    fn a_read_has_all_but_what_was_dropped_from_its_beginning() {
        let is_all = |seqs: &[u64], head| is_all_of(seqs, 10..14, head).is_ok();
        assert!(is_all(&[10, 11, 12, 13], 0) && is_all(&[10, 11, 12, 13, 14], 14), "what was published meanwhile too");
        assert!(is_all(&[12, 13], 12) && is_all(&[12, 13], 13) && is_all(&[], 14) && is_all(&[15], 20));
        assert!(!is_all(&[12, 13], 11), "a wrong start");
        assert!(!is_all(&[9, 10, 11, 12, 13], 0), "a wrong start");
        assert!(!is_all(&[10, 12, 13, 14], 0), "a gap");
        assert!(!is_all(&[10, 11, 12], 20), "a short end");
        assert!(!is_all(&[], 13), "nothing");
        assert!(is_all_of(&[], 10..10, 0).is_ok(), "nothing of nothing");
    }

    #[test]
    fn the_rise_is_that_of_the_line() {
        assert!((rise(&[1.0, 2.0, 3.0, 4.0]) - 3.0).abs() < 1e-9);
        assert!(rise(&[5.0, 5.0, 5.0]).abs() < 1e-9);
        assert!((rise(&[4.0, 2.0]) + 2.0).abs() < 1e-9);
    }
}
