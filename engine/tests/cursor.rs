//! A cursor outlives the process: its text and its serde form come back as they were, and nothing else is taken for one.

mod support;

use proptest::prelude::*;
use redex::{Cursor, CursorParseError, RedexError, SubscribeError, TailEnd};

use support::{fill, open, persistent, scratch};

proptest! {
    #[test]
    fn comes_back_from_text_and_bytes(epoch: u32, seq: u64) {
        let cursor = Cursor { epoch, seq };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let bytes = postcard::to_allocvec(&cursor).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Cursor>(&bytes), Ok(cursor));
    }

    /// Whatever is taken for a cursor is written as it was read: each cursor has one text.
    #[test]
    fn takes_no_other_text(text in "[0-9:+ -]{0,12}|\\PC{0,12}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }
}

#[test]
fn the_text_is_epoch_colon_sequence() {
    assert_eq!(Cursor { epoch: 0, seq: 0 }.to_string(), "0:0");
    let last = Cursor { epoch: u32::MAX, seq: u64::MAX };
    assert_eq!(last.to_string(), "4294967295:18446744073709551615");
    assert_eq!("4294967295:18446744073709551615".parse(), Ok(last));
}

#[test]
fn refuses_what_it_has_not_written() {
    let refused = |text: &str| text.parse::<Cursor>().expect_err(text);
    for text in ["", "17", "3;17"] {
        assert_eq!(refused(text), CursorParseError::MissingSeparator, "{text:?}");
    }
    for text in [":17", "x:17", " 3:17", "-3:17", "4294967296:17"] {
        assert!(matches!(refused(text), CursorParseError::Epoch(_)), "{text:?}");
    }
    for text in ["3:", "3:x", "3: 17", "3:17\n", "3:17:1", "3:-1", "3:18446744073709551616"] {
        assert!(matches!(refused(text), CursorParseError::Seq(_)), "{text:?}");
    }
    for text in ["03:17", "3:017", "+3:17", "3:+17", "00:0"] {
        assert_eq!(refused(text), CursorParseError::NotCanonical, "{text:?}");
    }
    let error = RedexError::from(refused("3:x"));
    assert!(support::text(&error).contains("invalid digit"), "the cause is kept");
}

/// A stored cursor of an earlier run subscribes where it stood; one that has seen more than survived is refused with the range.
#[test]
fn a_stored_cursor_goes_on_in_a_later_run() {
    let dir = scratch();
    let redex = open(dir.path(), redex::Backend::Auto);
    let file = redex.open_file("c", persistent()).unwrap();
    fill(&file, 0..5);
    let stored = Cursor { seq: 3, ..file.cursor() }.to_string();
    let epoch = file.cursor().epoch;
    redex.close().wait().unwrap();

    let redex = open(dir.path(), redex::Backend::Auto);
    let file = redex.open_file("c", persistent()).unwrap();
    fill(&file, 5..7);
    let mut tail = file.subscribe_from(stored.parse::<Cursor>().unwrap()).wait().unwrap();
    assert_eq!(tail.next_wait().unwrap().seq, 3);

    let seen_more: Cursor = format!("{epoch}:9").parse().unwrap();
    let refused = file.subscribe_from(seen_more).wait().unwrap_err();
    assert!(matches!(refused, SubscribeError::LostEvents { from: 5, to: 9, .. }), "{refused}");
    let mut tail = file.tail(seen_more);
    assert!(matches!(tail.next_wait(), Some(Err(TailEnd::Lost { from: 5, to: 9, .. }))));
    assert_eq!(tail.next_wait().unwrap().unwrap().seq, 5);
    redex.close().wait().unwrap();
}
