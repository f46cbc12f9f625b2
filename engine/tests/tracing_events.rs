//! The events that the engine gives to `tracing`: one for each change of state, with fields, and none for an event of a channel.

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use redex::Redex;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use support::{persistent, scratch, wait_until};

/// An event: its message, and its fields as text.
type Told = (String, BTreeMap<String, String>);

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Told>>>);

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("redex") {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let message = fields.0.remove("message").unwrap_or_default();
            self.0.lock().unwrap().push((message, fields.0));
        }
    }
}

impl Keeper {
    fn all(&self, message: &str) -> Vec<BTreeMap<String, String>> {
        let told = self.0.lock().unwrap();
        told.iter().filter(|(what, _)| what == message).map(|(_, fields)| fields.clone()).collect()
    }

    fn one(&self, message: &str, fields: &[&str]) -> BTreeMap<String, String> {
        let all = self.all(message);
        assert!(!all.is_empty(), "{message} is missing among {:?}", self.0.lock().unwrap());
        for name in fields {
            assert!(all[0].contains_key(*name), "{message} lacks {name}: {:?}", all[0]);
        }
        all[0].clone()
    }
}

/// One test: the shards' threads have the one global subscriber of the process.
#[test]
fn changes_of_state_are_told_once_and_events_never() {
    let keeper = Keeper::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(keeper.clone())).unwrap();
    let dir = scratch();
    let build = || {
        let builder = Redex::builder().persistent_dir(dir.path()).shards(1);
        builder.journal_segment_bytes(1 << 20).checkpoint_bytes(1 << 20).build().unwrap()
    };
    let redex = build();
    let opened = keeper.one("store opened", &["store", "uuid", "epoch", "shards", "channels", "elapsed_us"]);
    assert_eq!((&*opened["shards"], &*opened["channels"]), ("1", "0"));
    let file = redex.open_file("a", persistent().with_segment_bytes(1 << 20)).unwrap();
    let channel = keeper.one("channel opened", &["channel", "id", "shard", "created", "next_seq"]);
    assert_eq!((&*channel["channel"], &*channel["created"]), ("a", "true"));
    for _ in 0..2000 {
        file.append(vec![3; 4000]).wait().unwrap();
    }
    file.sync().wait().unwrap();
    redex.close().wait().unwrap();
    assert_eq!(keeper.all("store closed").len(), 1);
    keeper.one("journal rolled", &["shard", "segment"]);
    keeper.one("segment sealed", &["channel", "segment", "end", "dat_size"]);
    let checkpoint =
        keeper.one("checkpoint", &["shard", "checkpoint", "lsn", "changed", "moved", "files", "bytes", "elapsed_us"]);
    assert_eq!(checkpoint["changed"], "1");
    let told = keeper.0.lock().unwrap().len();
    assert!(told < 200, "{told} were told of 2000 events");
    drop((file, redex));

    // A copy of the store as a kill leaves it is replayed; the state of the original is taken while it is open.
    let redex = build();
    let file = redex.open_file("a", persistent().with_segment_bytes(1 << 20)).unwrap();
    assert_eq!(keeper.all("channel opened")[1]["created"], "false");
    for _ in 0..10 {
        file.append_durable([9; 50]).wait().unwrap();
    }
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    assert!(keeper.all("journal replayed").is_empty());
    let recovered = Redex::builder().persistent_dir(copy.path()).build().unwrap();
    let replayed = keeper.one("journal replayed", &["shard", "commits", "events", "channels", "next_lsn"]);
    assert_eq!((&*replayed["events"], &*replayed["channels"]), ("10", "1"));
    recovered.close().wait().unwrap();
    redex.close().wait().unwrap();
    assert_eq!(keeper.all("store closed").len(), 3);
    backpressure_is_told(&keeper);
}

/// Eight times as much as memory may take, awaited only at the end.
fn backpressure_is_told(keeper: &Keeper) {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).page_budget_bytes(1 << 20).build().unwrap();
    let file = redex.open_file("a", persistent()).unwrap();
    let appends: Vec<_> = (0..2000).map(|_| file.append([3; 4000])).collect();
    appends.into_iter().for_each(|append| _ = append.wait().unwrap());
    keeper.one("backpressure begun", &["shard", "behind", "waiting_channels", "memory_percent"]);
    wait_until("the end of it", || keeper.all("backpressure ended").len() == keeper.all("backpressure begun").len());
    keeper.one("backpressure ended", &["shard", "elapsed_us"]);
    redex.close().wait().unwrap();
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
