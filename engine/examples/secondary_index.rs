//! A secondary index: orders by customer and by value, found without reading the log, in step with it.
//!
//! `cargo run -p redex --example secondary_index` works in a directory of its own below the current one, and removes it.
//! The index lives in memory; it is made from the log when it is opened, and then follows it.

use std::error::Error;

use redex::{IndexOp, IndexStart, Redex, RedexFileConfig, RedexIndex, TypedRedexFile};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Event {
    Ordered {
        customer: String,
        cents: u64,
    },
    /// The order of this sequence, with what it said, so that an index knows what to remove.
    Cancelled {
        order: u64,
        customer: String,
        cents: u64,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let redex = Redex::open(dir.path())?;
    let file = redex.open_file("orders", RedexFileConfig::default().with_persistent(true))?;
    let orders = TypedRedexFile::<Event>::new(file);
    let ordered = |i: u64| Event::Ordered { customer: format!("customer {:02}", i % 40), cents: i * 10 };
    let history: Vec<Event> = (0..10_000).map(ordered).collect();
    orders.append_batch(&history).wait()?;

    let by_customer = RedexIndex::open_typed(&orders, IndexStart::BEGINNING, |event| match &event.value {
        Event::Ordered { customer, .. } => vec![IndexOp::Insert(customer.clone(), event.seq)],
        Event::Cancelled { customer, order, .. } => vec![IndexOp::Remove(customer.clone(), *order)],
    })?;
    let by_value = RedexIndex::open_typed(&orders, IndexStart::BEGINNING, |event| match event.value {
        Event::Ordered { cents, .. } => vec![IndexOp::Insert(cents, event.seq)],
        Event::Cancelled { cents, order, .. } => vec![IndexOp::Remove(cents, order)],
    })?;

    // What was appended before and what is appended now, the newest included.
    let cancelled = Event::Cancelled { order: 7, customer: "customer 07".into(), cents: 70 };
    let last = orders.append(&cancelled).wait()?;
    by_customer.wait_for_seq(last).wait()?;
    by_value.wait_for_seq(last).wait()?;

    let of_seven = by_customer.get("customer 07").ok_or("it has orders")?;
    println!("{} customers; customer 07 has {} orders", by_customer.len(), of_seven.len());
    assert_eq!((by_customer.len(), of_seven.len(), of_seven.contains(&7)), (40, 249, false));

    let cheap = by_value.range(..100, 100);
    println!("orders below 1.00: {:?}", cheap.iter().map(|(cents, _)| cents).collect::<Vec<_>>());
    assert_eq!(cheap.len(), 9);
    let first_of_seven = of_seven.first().copied().ok_or("it has orders")?;
    let event = orders.read_one(first_of_seven).wait()?.ok_or("it is in the log")?;
    assert!(matches!(event.value, Event::Ordered { cents: 470, .. }));

    // What is no event of this type is counted and named, and what comes behind is indexed.
    orders.file().append(b"\xffnot an event").wait()?;
    let after = orders.append(&ordered(10_000)).wait()?;
    by_value.wait_for_seq(after).wait()?;
    assert!(by_value.contains(&100_000, &after));
    let errors = by_value.errors();
    println!("{} event is not in the index: {}", errors.count, errors.newest[0]);
    assert_eq!((errors.count, by_value.lag()), (1, 0));

    redex.close().wait()?;
    Ok(())
}
