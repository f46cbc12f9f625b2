//! What is said of a store's directory that other users may enter. In a binary of its own: `tracing` remembers for each place of
//! the program whether anybody listens to it, and a test beside this one, which does not, would answer for it.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use redex::{Backend, Redex};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use support::scratch;

/// Keeps the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?} ");
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.lock().unwrap().push(message.0);
        }
    }
}

/// A directory that others may enter is the user's to decide on: it is told, once at each opening, and opens.
#[test]
fn a_directory_that_is_open_to_others_is_told() {
    let dir = scratch();
    let base = dir.path().join("store");
    let open = || Redex::builder().persistent_dir(&base).backend(Backend::Posix).shards(1).build().unwrap();
    open().close().wait().unwrap();
    for (mode, told) in [(0o700, 0), (0o750, 1), (0o701, 1), (0o777, 1)] {
        fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = Warnings::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(warnings.clone()), || {
            drop(Redex::open_read_only(&base).unwrap());
            drop(open());
        });
        let warnings = warnings.0.lock().unwrap();
        let of_access: Vec<_> = warnings.iter().filter(|text| text.contains("other users have access")).collect();
        assert_eq!(of_access.len(), 2 * told, "{mode:o}: {warnings:?}");
        assert!(of_access.iter().all(|text| text.contains(&format!("{mode:03o}")) && text.contains("chmod 700")));
    }
}
