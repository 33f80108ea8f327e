//! The cases that a soak must have covered.

macro_rules! covered {
    ($($covered:ident: $what:literal,)*) => {
        /// A case that calls came to.
        #[derive(Clone, Copy, Debug)]
        pub enum Covered {
            $($covered,)*
        }

        impl Covered {
            pub const ALL: &[Self] = &[$(Self::$covered,)*];

            /// In words, for a count of it.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$covered => $what,)*
                }
            }
        }
    };
}

covered! {
    Answered: "calls answered at their first attempt",
    AnsweredLater: "calls answered after retries",
    Failed: "calls that failed",
    Retry: "retries",
    Timeout: "attempts that timed out",
    NotTransient: "gave up: not transient",
    NotRetried: "gave up: a stream that is not retried",
    Exhausted: "gave up: retries used up",
    RetryAfterTooLong: "gave up: asked to wait too long",
    Deadline: "gave up: deadline",
    Budget: "gave up: budget",
    CancelledUnpolled: "cancelled before the first poll",
    CancelledInAttempt: "cancelled in an attempt",
    CancelledInDelay: "cancelled in a delay",
    CancelledOpen: "cancelled with an open stream",
    ProviderPanic: "panics of an attempt",
    StreamPanic: "panics of an open stream",
    ObserverPanic: "panics of an observer",
    Hop: "hops to another executor in mid-call",
    Jump: "jumps of the clock by hours",
    Suspend: "suspends: the clock ahead of the sleeps",
    OwnSleeps: "calls with sleeps of their own",
    SharedSleeps: "calls with shared sleeps",
    Cloned: "calls of a clone",
    Orphan: "streams that outlived their wrapper",
    StreamEnded: "streams read to their end",
    StreamFailed: "streams that failed on the way",
    StreamStalled: "streams that stalled",
    Item: "items of streams",
    Slow: "streams of a slow consumer",
    Conserved: "shared budgets that were conserved",
    Rounds: "rounds, each on a pair of executors",
}

impl Covered {
    /// The cases that are possible over real sockets.
    pub const OVER_SOCKETS: &[Self] = &[
        Self::Answered,
        Self::AnsweredLater,
        Self::Failed,
        Self::Retry,
        Self::Timeout,
        Self::NotTransient,
        Self::Exhausted,
        Self::RetryAfterTooLong,
        Self::CancelledUnpolled,
        Self::CancelledInAttempt,
        Self::CancelledInDelay,
        Self::CancelledOpen,
        Self::ObserverPanic,
        Self::Cloned,
        Self::Orphan,
        Self::StreamEnded,
        Self::StreamFailed,
        Self::StreamStalled,
        Self::Item,
    ];
}
