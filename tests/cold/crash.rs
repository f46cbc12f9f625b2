//! The power goes off at every step of uploads, manifests, unlinks and deletions, and at many others.

use std::collections::BTreeMap;

use redex::sim::StepKind;

use super::{World, check_events, fill, kinds, payload, settle, stats};

/// Events of the life that is cut, and of the one behind it.
const EVENTS: u64 = 200;
const MORE: u64 = 80;

/// Where the power goes off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// At the nth step of a kind.
    At(StepKind, u64),
    /// After so many steps.
    After(u64),
}

/// Lives until the cut; gives the events that were durable before, or `None` if the life ended before the cut came.
fn cut_life(world: &mut World, cut: Cut) -> Option<u64> {
    let disk = world.disk.clone();
    match cut {
        Cut::At(kind, nth) => disk.power_off_at(kind, nth),
        Cut::After(steps) => disk.power_off_after(Some(steps)),
    }
    let mut durable = 0;
    if let Ok((mut store, file)) = world.try_open() {
        let mut idle = 0;
        while !disk.is_off() && idle < 3 {
            if file.next_seq() < EVENTS {
                let batch: Vec<Vec<u8>> = (file.next_seq()..file.next_seq() + 2).map(payload).collect();
                // Made by the call; nobody waits.
                drop(file.append_batch_durable(&batch));
            }
            for _ in 0..4 {
                if matches!(store.step(), redex::sim::SimStep::Idle) {
                    idle += usize::from(file.next_seq() >= EVENTS);
                }
            }
            if !disk.is_off() {
                durable = file.durable();
            }
        }
    }
    let hit = disk.is_off();
    disk.power_cut();
    world.disk.power_off_after(None);
    hit.then_some(durable)
}

/// Opens, compares, goes on, settles, and compares again.
fn check_after(world: &mut World, durable: u64) {
    world.check_manifest();
    let (mut store, file) = world.open();
    let end = file.next_seq();
    assert!(end >= durable, "{durable} events were durable, {end} are there");
    check_events(&mut store, &file, end);
    fill(&mut store, &file, end + MORE);
    settle(&mut store);
    redex_tests::drive(&mut store, file.sweep_cold()).unwrap();
    world.check_settled();
    check_events(&mut store, &file, end + MORE);
    store.close().unwrap();
    drop(file);
    world.disk.power_cut();
    world.check_settled();
    let (mut store, file) = world.open();
    check_events(&mut store, &file, end + MORE);
    assert_eq!(stats(&store).rebuilds, 0, "the manifest was whole");
}

#[test]
fn no_power_cut_loses_an_event_or_leaves_a_manifest_that_points_at_nothing() {
    let mut hits: BTreeMap<StepKind, u64> = BTreeMap::new();
    for &compressed in kinds() {
        for kind in [StepKind::ColdUpload, StepKind::ColdManifest, StepKind::SegmentUnlink] {
            for nth in 1.. {
                let mut world = World::new(nth, compressed);
                let Some(durable) = cut_life(&mut world, Cut::At(kind, nth)) else { break };
                assert_eq!(world.disk.last_step().map(|(kind, _)| kind), Some(kind));
                check_after(&mut world, durable);
                *hits.entry(kind).or_default() += 1;
            }
        }
        for steps in (10..).step_by(53) {
            let mut world = World::new(steps, compressed);
            let Some(durable) = cut_life(&mut world, Cut::After(steps)) else { break };
            *hits.entry(world.disk.last_step().unwrap().0).or_default() += 1;
            check_after(&mut world, durable);
        }
    }
    let cold: u64 = [StepKind::ColdUpload, StepKind::ColdManifest, StepKind::SegmentUnlink]
        .iter()
        .map(|kind| hits.get(kind).copied().unwrap_or(0))
        .inspect(|hits| assert!(*hits >= 4))
        .sum();
    assert!(cold > 30, "{hits:?}");
    println!("{hits:?}");
}

/// Two cuts in a row: the second in the life that cleans up after the first.
#[test]
fn a_cut_while_the_last_one_is_cleaned_up_is_a_cut_like_any_other() {
    let mut second_hits = 0;
    for nth in 1..6 {
        for kind in [StepKind::ColdUpload, StepKind::ColdManifest, StepKind::SegmentUnlink, StepKind::ColdDelete] {
            let mut world = World::new(1000 + nth, false);
            let Some(durable) = cut_life(&mut world, Cut::At(StepKind::ColdUpload, nth)) else { continue };
            let again = cut_life(&mut world, Cut::At(kind, 1));
            second_hits += u64::from(again.is_some());
            check_after(&mut world, durable.max(again.unwrap_or(0)));
        }
    }
    assert!(second_hits > 5, "{second_hits}");
}
