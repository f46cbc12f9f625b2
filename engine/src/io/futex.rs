//! Sleeping on a word of memory, and waking those who do (futex(2)).
#![allow(unsafe_code)] // The calls themselves.

use std::sync::atomic::AtomicU32;

/// Sleeps for as long as the word is `expected` and nobody wakes one of these bits. May wake for no reason.
pub fn wait(word: &AtomicU32, expected: u32, bits: u32) {
    let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let no_limit = std::ptr::null::<libc::timespec>();
    // SAFETY: the word outlives the call, no limit of time is given, and the second word is not used. What it returns tells why
    // it woke, which the caller does not have to know.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, no_limit, std::ptr::null::<u32>(), bits)
    };
}

/// Wakes all who sleep on the word for one of these bits.
pub fn wake_all(word: &AtomicU32, bits: u32) {
    let operation = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let (nothing, no_word) = (std::ptr::null::<libc::timespec>(), std::ptr::null::<u32>());
    // SAFETY: the word outlives the call; the other pointers are not used.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX, nothing, no_word, bits) };
}
