//! Keeps a program alive whose mapped file was cut off.
//!
//! A touch of a mapped page that the file does not have any more, or that the device cannot read, raises SIGBUS. With the first
//! mapping a handler is installed for the process. Where the address is one of ours, it puts a page of zeros there, marks
//! the mapping as broken, and the program goes on; whoever reads looks at the mark. Any other SIGBUS goes to the handler that was
//! there before, or ends the program as if this one were not there.
//!
//! Promises: the handler makes one system call and touches atomics only: it takes no lock, allocates nothing, and keeps `errno`.
//! What it leaves to others: a program that installs a handler of its own afterwards has to pass on what is not its.
#![allow(unsafe_code)]

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock};

/// Places that are made at once; they stay for good and are used again.
const PLACES: usize = 256;

/// The addresses of one mapping.
#[derive(Debug)]
struct Place {
    /// Odd while the addresses change.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

struct Places {
    places: [Place; PLACES],
    next: AtomicPtr<Places>,
}

/// All places ever made, newest first.
static PLACES_HEAD: AtomicPtr<Places> = AtomicPtr::new(null_mut());
/// Those that no mapping has.
static FREE: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());
/// What was there before our handler; set before it is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(4096);

/// Watches over the addresses of one mapping.
#[derive(Debug)]
pub(super) struct Guard(&'static Place);

impl Guard {
    /// Watches over mapped bytes from now on, until it is dropped; they must stay mapped until then.
    pub(super) fn over(start: usize, len: usize) -> io::Result<Self> {
        install()?;
        let mut free = FREE.lock().expect("no panic while the lock is held");
        if free.is_empty() {
            free.extend(make_places());
        }
        let place = free.pop().expect("some were made");
        drop(free);
        let page = PAGE_SIZE.load(Ordering::Relaxed);
        place.broken.store(false, Ordering::Relaxed);
        place.set(start, start + len.next_multiple_of(page));
        Ok(Self(place))
    }

    /// Whether a page was replaced.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(0, 0);
        FREE.lock().expect("no panic while the lock is held").push(self.0);
    }
}

impl Place {
    /// Changes the addresses. Only the one that has the place does this.
    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, Ordering::Acquire);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether the address lies in the mapping. One that changes meanwhile is nobody's to touch, so it does not.
    fn has(&self, address: usize) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version && (start..end).contains(&address)
    }
}

/// More places, known to the handler.
fn make_places() -> impl Iterator<Item = &'static Place> {
    let place = |_| Place {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    };
    let places = Box::leak(Box::new(Places {
        places: std::array::from_fn(place),
        next: AtomicPtr::new(PLACES_HEAD.load(Ordering::Relaxed)),
    }));
    // Under the lock of FREE: nobody else adds.
    PLACES_HEAD.store(places, Ordering::Release);
    places.places.iter()
}

/// The place of a mapping that has this address. Called by the handler.
fn place_of(address: usize) -> Option<&'static Place> {
    let mut places = PLACES_HEAD.load(Ordering::Acquire);
    // SAFETY: places are leaked: what the head and `next` point to is there for good.
    while let Some(some) = unsafe { places.as_ref() } {
        if let Some(place) = some.places.iter().find(|place| place.has(address)) {
            return Some(place);
        }
        places = some.next.load(Ordering::Relaxed);
    }
    None
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().expect("no panic while the lock is held");
    if *installed {
        return Ok(());
    }
    // SAFETY: takes and gives plain integers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_SIZE.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
    // SAFETY: `sigaction` is plain integers and a set of bits, for which zero is valid.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no action is given, and `previous` outlives the call.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    PREVIOUS.get_or_init(|| previous);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does only what is safe in a handler.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A code above 0 is the kernel's own: then there is an address.
    if code > 0 && place_of(address).is_some_and(|place| replace(place, address)) {
        return;
    }
    pass_on(code > 0, signal, info, context);
}

/// Puts zeros where the page was. Says whether it could.
fn replace(place: &Place, address: usize) -> bool {
    place.broken.store(true, Ordering::Release);
    let page = PAGE_SIZE.load(Ordering::Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: `errno` belongs to this thread, and is put back below.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the page lies in one of our mappings, which the faulting thread keeps alive, and nobody writes there. Whoever
    // reads it now gets zeros instead of a signal.
    let mapped = unsafe { libc::mmap((address & !(page - 1)) as *mut _, page, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    mapped != libc::MAP_FAILED
}

/// What would have happened without our handler.
fn pass_on(by_kernel: bool, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(previous) = PREVIOUS.get() else { return };
    match previous.sa_sigaction {
        libc::SIG_IGN if !by_kernel => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: as in `install`. The program ends with this signal: a touch is made again when the handler returns, and
            // one that somebody sent is raised again, which waits until then.
            unsafe {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, null_mut());
                if !by_kernel {
                    libc::raise(signal);
                }
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: it was installed with SA_SIGINFO, so it has this signature.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without SA_SIGINFO, so it has this signature.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
