//! Names of many objects in little memory: 16 bytes each.

use chrono::{Datelike as _, NaiveDate};
use rustc_hash::FxHashMap;

use super::layout::{Kind, Place};
use crate::store::Key;

/// The name of an object in a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Packed {
    /// The day, and the position of its kind in [`Kind::ALL`]; [`ODD`] of a name that is kept as a text.
    place: u32,
    /// Which object of the run.
    ordinal: u32,
    /// The second of the run; of a text its position.
    second: i64,
}

/// Stands for a place where the name is not one that a run gives.
const ODD: u32 = u32::MAX;

/// Names by their position.
#[derive(Debug, Default)]
pub(crate) struct Names {
    packed: Vec<Packed>,
    odd: Vec<Key>,
    odd_positions: FxHashMap<Key, usize>,
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.packed.len()
    }

    pub(crate) fn push(&mut self, key: &Key) {
        let packed = self.intern(key);
        self.packed.push(packed);
    }

    /// Packs a name without adding it to the list.
    pub(crate) fn intern(&mut self, key: &Key) -> Packed {
        Packed::new(key).unwrap_or_else(|| {
            let position = *self.odd_positions.entry(key.clone()).or_insert(self.odd.len());
            if position == self.odd.len() {
                self.odd.push(key.clone());
            }
            Packed::odd(position)
        })
    }

    pub(crate) fn get(&self, position: usize) -> Option<Key> {
        self.key(self.packed(position)?)
    }

    /// The name that was packed.
    pub(crate) fn key(&self, packed: Packed) -> Option<Key> {
        let odd = || self.odd.get(usize::try_from(packed.second).ok()?).cloned();
        packed.key().or_else(odd)
    }

    /// The day of a packed name, and when it was written.
    pub(crate) fn written(&self, packed: Packed) -> Option<(NaiveDate, (i64, u32))> {
        if let Some(Place { day, .. }) = packed.place() {
            return Some((day, (packed.second, packed.ordinal)));
        }
        let key = self.key(packed)?;
        Some((Place::of(key.as_str())?.day, key.run()))
    }

    pub(crate) fn packed(&self, position: usize) -> Option<Packed> {
        self.packed.get(position).copied()
    }

    /// How a name of the list that is equal to this one is packed.
    pub(crate) fn pack(&self, key: &Key) -> Option<Packed> {
        Packed::new(key).or_else(|| self.odd_positions.get(key).map(|&position| Packed::odd(position)))
    }
}

impl Packed {
    fn odd(position: usize) -> Self {
        Self { place: ODD, ordinal: 0, second: i64::try_from(position).unwrap_or(i64::MAX) }
    }

    /// A name that a run gives; nothing for any other.
    fn new(key: &Key) -> Option<Self> {
        let Place { kind, day } = Place::of(key.as_str())?;
        let (second, ordinal) = key.run();
        let kind_number = Kind::ALL.iter().position(|it| *it == kind)?;
        let day_number = u32::try_from(day.num_days_from_ce()).ok().filter(|number| *number < ODD >> 2)?;
        let place = day_number << 2 | u32::try_from(kind_number).ok()?;
        let packed = Self { place, ordinal, second };
        (packed.key().as_ref() == Some(key)).then_some(packed)
    }

    /// The kind and the day, of a name that a run gives.
    fn place(self) -> Option<Place> {
        let kind = *Kind::ALL.get((self.place & 3) as usize).filter(|_| self.place != ODD)?;
        let day = NaiveDate::from_num_days_from_ce_opt(i32::try_from(self.place >> 2).ok()?)?;
        Some(Place { kind, day })
    }

    fn key(self) -> Option<Key> {
        let Place { kind, day } = self.place()?;
        Some(kind.key(day, self.second, self.ordinal))
    }
}

impl Key {
    /// When the run that wrote an object began, in seconds, and which of that second's objects it is, by its name.
    pub(crate) fn run(&self) -> (i64, u32) {
        let name = self.as_str().rsplit('/').next().unwrap_or_default();
        let mut numbers = name.split(['-', '.']).skip(1);
        let second = numbers.next().and_then(|second| second.parse().ok()).unwrap_or(0);
        let ordinal = numbers.next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or(1);
        (second, ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let names = [
            "events/2026/01/02/events-1767362400.jsonl",
            "events/2026/01/02/events-1767362400-12.jsonl",
            "events/2026/01/02/events-01767362400.jsonl",
            "events/2026/01/02/events-1767362400-1.jsonl",
            "events/2026/01/02/copy.jsonl",
            "withdrawn/9999/12/31/withdrawn-1.jsonl",
            "rejected/0000/01/01/rejected--5.jsonl",
            "metadata/last_seen.json",
        ];
        let mut list = Names::default();
        for name in names {
            let key = Key::new(name).unwrap();
            list.push(&key);
            assert_eq!(list.pack(&key), list.packed(list.len() - 1));
        }
        let found: Vec<String> = (0..names.len()).map(|at| list.get(at).unwrap().to_string()).collect();
        assert_eq!(found, names);
        assert_eq!(list.odd.len(), 5, "{:?}", list.odd);
    }
}
