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
    /// The connection is cut; it was done.
    Reset,
    /// The connection is cut; it is done only after some later requests.
    Late,
}

const KINDS: [Fault; 6] =
    [Fault::Busy, Fault::Broken, Fault::NoBucket, Fault::LostAnswer, Fault::Reset, Fault::Late];

/// How often what goes wrong, per mille of the requests.
#[derive(Debug)]
pub struct Faults {
    rng: Pcg64Mcg,
    /// In the order of [`KINDS`].
    shares: [u32; KINDS.len()],
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::of([0; KINDS.len()], 0)
    }

    /// More faults than were ever observed: every sixth request or so, in each of the known ways.
    #[must_use]
    pub fn many(seed: u64) -> Self {
        Self::of([30, 20, 50, 30, 20, 20], seed)
    }

    /// The probability, per mille, of [`Fault::Busy`], [`Fault::Broken`], [`Fault::NoBucket`],
    /// [`Fault::LostAnswer`], [`Fault::Reset`], [`Fault::Late`].
    #[must_use]
    pub fn of(shares: [u32; KINDS.len()], seed: u64) -> Self {
        Self { rng: Pcg64Mcg::seed_from_u64(seed), shares }
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        let mut drawn = self.rng.next_u32() % 1_000;
        for (share, fault) in self.shares.into_iter().zip(KINDS) {
            if drawn < share {
                return Some(fault);
            }
            drawn -= share;
        }
        None
    }

    /// After how many requests a late one is done.
    pub(super) fn delay(&mut self) -> u32 {
        1 + self.rng.next_u32() % 12
    }
}
