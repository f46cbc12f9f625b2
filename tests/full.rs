//! Memory for events that wait to be written is used up, and nobody writes: on a simulated disk, whose shards stand still.

use std::sync::Arc;

use futures_util::FutureExt;
use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{AppendError, RedexFileConfig};

const PAYLOAD: [u8; 4000] = [7; 4000];

#[test]
fn try_append_refuses_at_the_door_and_works_again_when_there_is_room() {
    let disk = SimDisk::new(1, SimOptions::default());
    let settings = SimSettings { page_budget_bytes: 1 << 20, ..SimSettings::default() };
    let mut store = SimStore::open(&disk, &settings, &Arc::new(ManualClock::default()), 1).unwrap();
    let file = store.redex().open_file("a", RedexFileConfig::default().with_persistent(true)).unwrap();
    for round in 1..4 {
        let before = file.published();
        let error = loop {
            match file.try_append(PAYLOAD) {
                Ok(seq) => assert_eq!(seq + 1, file.published()),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, AppendError::Full { channel } if channel.as_str() == "a"), "{error}");
        let published = file.published();
        let taken = (published - before) * PAYLOAD.len() as u64;
        assert!((256 << 10..=1 << 20).contains(&taken), "round {round}: {taken} bytes of a budget of 1 MiB");
        // Again and again: nothing waits, nothing is kept.
        for _ in 0..100 {
            assert!(matches!(file.try_append(PAYLOAD), Err(AppendError::Full { .. })));
        }
        assert_eq!(file.published(), published, "what is refused is not appended");
        // `append` lines up instead; whoever does not wait is refused as long as somebody is in front.
        let lined_up = file.append(PAYLOAD);
        assert!(matches!(file.try_append(PAYLOAD), Err(AppendError::Full { .. })));
        assert_eq!(file.published(), published);
        let mut turns = 0;
        drop(file.sync());
        while file.durable() < published + 1 {
            assert!(turns < 100_000, "round {round}: nothing is written");
            store.step();
            turns += 1;
        }
        assert_eq!(lined_up.now_or_never().expect("it has its place").unwrap(), published);
        assert_eq!(file.published(), published + 1);
        let events = file.read_range(0, u64::MAX).now_or_never().expect("reads are done at once").unwrap();
        assert_eq!(events.len() as u64, published + 1);
        assert!(events.iter().all(|event| event.payload == PAYLOAD[..].to_vec()));
    }
    store.close().unwrap();
}
