//! What goes wrong, drawn from a seed.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// One thing that goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429; nothing was done.
    Busy,
    /// 500; nothing was done, which the client cannot know.
    Broken,
    /// 404 `BucketNotFound` for a bucket that is there; nothing was done.
    NoBucket,
    /// 503; it was done.
    LostAnswer,
}

/// How often what goes wrong, per mille of the requests.
#[derive(Debug)]
pub struct Faults {
    dice: Pcg64Mcg,
    busy: u32,
    broken: u32,
    no_bucket: u32,
    lost_answer: u32,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::of([0; 4], 0)
    }

    /// More goes wrong than anybody has seen: every eighth request or so, in each of the known ways.
    #[must_use]
    pub fn many(seed: u64) -> Self {
        Self::of([30, 20, 50, 30], seed)
    }

    /// So many per mille are [`Fault::Busy`], [`Fault::Broken`], [`Fault::NoBucket`], [`Fault::LostAnswer`].
    #[must_use]
    pub fn of([busy, broken, no_bucket, lost_answer]: [u32; 4], seed: u64) -> Self {
        Self { dice: Pcg64Mcg::seed_from_u64(seed), busy, broken, no_bucket, lost_answer }
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        let mut drawn = self.dice.next_u32() % 1_000;
        let kinds = [
            (self.busy, Fault::Busy),
            (self.broken, Fault::Broken),
            (self.no_bucket, Fault::NoBucket),
            (self.lost_answer, Fault::LostAnswer),
        ];
        for (share, fault) in kinds {
            if drawn < share {
                return Some(fault);
            }
            drawn -= share;
        }
        None
    }
}
