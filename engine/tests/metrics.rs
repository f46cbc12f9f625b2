//! What `export_metrics` gives to a recorder: names, labels, values, and how many channels.

mod support;

use std::collections::HashMap;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use redex::{Redex, RedexFileConfig};

use support::{persistent, scratch, wait_until};

/// A recorder and what it has got.
struct Recorder {
    recorder: DebuggingRecorder,
    snapshotter: Snapshotter,
}

/// Series by name and labels, as `name{label=value}`.
type Series = HashMap<String, (MetricKind, DebugValue)>;

impl Recorder {
    fn new() -> Self {
        let recorder = DebuggingRecorder::new();
        Self { snapshotter: recorder.snapshotter(), recorder }
    }

    /// Exports once, and gives what came of it. Histograms begin anew each time.
    fn export(&self, redex: &Redex) -> Series {
        metrics::with_local_recorder(&self.recorder, || redex.export_metrics());
        let mut series = Series::new();
        for (key, unit, description, value) in self.snapshotter.snapshot().into_vec() {
            let (kind, key) = key.into_parts();
            assert!(unit.is_some() && description.is_some(), "{key} has a unit and a description");
            let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            series.insert(format!("{}{{{}}}", key.name(), labels.join(",")), (kind, value));
        }
        series
    }
}

fn counter(series: &Series, name: &str) -> u64 {
    match &series[name] {
        (MetricKind::Counter, DebugValue::Counter(value)) => *value,
        other => panic!("{name} is {other:?}"),
    }
}

fn gauge(series: &Series, name: &str) -> f64 {
    match &series[name] {
        (MetricKind::Gauge, DebugValue::Gauge(value)) => value.0,
        other => panic!("{name} is {other:?}"),
    }
}

fn histogram(series: &Series, name: &str) -> Vec<f64> {
    match &series[name] {
        (MetricKind::Histogram, DebugValue::Histogram(values)) => values.iter().map(|value| value.0).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn the_recorder_gets_what_the_engine_counts() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(2).build().unwrap();
    let recorder = Recorder::new();
    let file = redex.open_file("a", persistent()).unwrap();
    for _ in 0..50 {
        file.append_durable([7; 100]).wait().unwrap();
    }
    // The latency of the last commit is counted before its waiter wakes.
    let series = recorder.export(&redex);
    let sum = |name: &str| (0..2).map(|shard| counter(&series, &format!("{name}{{shard={shard}}}"))).sum::<u64>();
    let stats = redex.stats();
    assert_eq!((sum("redex_events_total"), sum("redex_payload_bytes_total")), (50, 5000));
    assert_eq!((sum("redex_flushes_total"), stats.flushes), (50, 50));
    assert!(sum("redex_journal_bytes_total") >= 50 * 4096);
    let latencies: Vec<f64> = (0..2)
        .map(|shard| format!("redex_commit_latency_seconds{{shard={shard}}}"))
        .filter(|name| series.contains_key(name))
        .flat_map(|name| histogram(&series, &name))
        .collect();
    assert_eq!(latencies.len(), 50, "one for each durable commit");
    assert!(latencies.iter().all(|seconds| *seconds > 1e-6 && *seconds < 60.0), "{latencies:?}");
    for (name, value) in [
        ("redex_channel_next_seq{channel=a}", 50.0),
        ("redex_channel_durable_seq{channel=a}", 50.0),
        ("redex_channel_lag_events{channel=a}", 0.0),
        ("redex_channel_lag_seconds{channel=a}", 0.0),
        ("redex_channels_left_out{}", 0.0),
        ("redex_shard_lag_events{shard=0}", 0.0),
        ("redex_page_budget_bytes{}", (256 << 20) as f64),
    ] {
        assert_eq!(gauge(&series, name), value, "{name}");
    }
    assert!(gauge(&series, "redex_page_bytes{}") > 0.0);
    assert!((5000.0..9000.0).contains(&gauge(&series, "redex_channel_bytes{channel=a}")));
    let channels: f64 = (0..2).map(|shard| gauge(&series, &format!("redex_shard_channels{{shard={shard}}}"))).sum();
    assert_eq!(channels, 1.0);

    // Histograms give what came since.
    file.append_durable([7; 100]).wait().unwrap();
    let series = recorder.export(&redex);
    let latencies = |series: &Series| {
        series
            .iter()
            .filter(|(name, _)| name.starts_with("redex_commit_latency_seconds"))
            .map(|(_, value)| match value {
                (MetricKind::Histogram, DebugValue::Histogram(values)) => values.len(),
                other => panic!("{other:?}"),
            })
            .sum::<usize>()
    };
    assert_eq!(latencies(&series), 1);
    // What is exported is documented.
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md")).unwrap();
    for name in series.keys().map(|name| name.split('{').next().unwrap()) {
        assert!(table.contains(&format!("| `{name}` |")), "{name} is not in docs/observability.md");
    }
    redex.close().wait().unwrap();
}

#[test]
fn lag_is_what_is_published_and_not_durable() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).build().unwrap();
    let recorder = Recorder::new();
    let file = redex.open_file("a", persistent()).unwrap();
    for _ in 0..10 {
        file.append([1; 30]).wait().unwrap();
    }
    let series = recorder.export(&redex);
    assert_eq!(gauge(&series, "redex_channel_lag_events{channel=a}"), 10.0);
    assert_eq!(gauge(&series, "redex_shard_lag_events{shard=0}"), 10.0);
    assert_eq!(gauge(&series, "redex_shard_lag_channels{shard=0}"), 1.0);
    wait_until("a lag in time", || gauge(&recorder.export(&redex), "redex_channel_lag_seconds{channel=a}") > 0.02);
    file.sync().wait().unwrap();
    let series = recorder.export(&redex);
    assert_eq!(gauge(&series, "redex_channel_lag_events{channel=a}"), 0.0);
    assert_eq!(gauge(&series, "redex_channel_lag_seconds{channel=a}"), 0.0);
    assert_eq!(gauge(&series, "redex_shard_lag_events{shard=0}"), 0.0);
}

/// However many channels are open, and grow, a thousand have series; those keep them.
#[test]
fn the_number_of_series_is_bounded() {
    let redex = Redex::in_memory();
    let recorder = Recorder::new();
    let open = |number: u32| redex.open_file(format!("c{number}"), RedexFileConfig::default()).unwrap();
    let files: Vec<_> = (0..1500).map(open).collect();
    let of_channels = |series: &Series| series.keys().filter(|name| name.starts_with("redex_channel_next_seq")).count();
    assert_eq!(of_channels(&recorder.export(&redex)), 0, "none has grown");
    files[..20].iter().for_each(|file| _ = file.append(b"x").wait().unwrap());
    let series = recorder.export(&redex);
    assert_eq!((of_channels(&series), gauge(&series, "redex_channels_left_out{}")), (20, 1480.0));
    files.iter().for_each(|file| _ = file.append(b"x").wait().unwrap());
    let series = recorder.export(&redex);
    assert_eq!((of_channels(&series), gauge(&series, "redex_channels_left_out{}")), (1000, 500.0));
    assert_eq!(gauge(&series, "redex_channel_next_seq{channel=c7}"), 2.0);
    files[7].append(b"x").wait().unwrap();
    let series = recorder.export(&redex);
    assert_eq!(of_channels(&series), 1000);
    assert_eq!(gauge(&series, "redex_channel_next_seq{channel=c7}"), 3.0);
}
