//! An allocator that counts on demand, on all threads. The soak (`tests/soak`) uses it too.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    on: AtomicBool::new(false),
    allocations: AtomicU64::new(0),
    live_bytes: AtomicI64::new(0),
};

/// The system's allocator. While it does not count, as whenever time is measured, it adds
/// one load and one predictable branch to each operation.
struct Counting {
    on: AtomicBool,
    allocations: AtomicU64,
    live_bytes: AtomicI64,
}

impl Counting {
    fn count(&self, allocations: u64, bytes: i64) {
        if self.on.load(Relaxed) {
            self.allocations.fetch_add(allocations, Relaxed);
            self.live_bytes.fetch_add(bytes, Relaxed);
        }
    }
}

fn signed(size: usize) -> i64 {
    size.try_into().unwrap_or(i64::MAX)
}

// SAFETY: every method passes its arguments on to `System` unchanged and
// returns what that returns; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(1, signed(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(1, signed(layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count(1, signed(size) - signed(layout.size()));
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.count(0, -signed(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The requests to the heap.
#[derive(Clone, Copy)]
pub struct Heap {
    pub allocations: u64,
    pub live_bytes: i64,
}

/// Counts the requests of all threads to the heap while `f` runs, and until the helper
/// threads of timer crates have caught up.
pub fn heap(f: impl FnOnce()) -> Heap {
    ALLOCATOR.allocations.store(0, Relaxed);
    ALLOCATOR.live_bytes.store(0, Relaxed);
    ALLOCATOR.on.store(true, Relaxed);
    f();
    thread::sleep(Duration::from_millis(300));
    ALLOCATOR.on.store(false, Relaxed);
    Heap {
        allocations: ALLOCATOR.allocations.load(Relaxed),
        live_bytes: ALLOCATOR.live_bytes.load(Relaxed),
    }
}
