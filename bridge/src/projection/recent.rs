//! A row of what came last, of which nearly only the newest is looked at. That
//! one lies beside its owner and not among the others: thousands of rows are
//! visited in turn, and each other place is another wait for memory.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// Elements from oldest to newest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Recent<T> {
    newest: Option<T>,
    older: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            newest: None,
            older: VecDeque::new(),
        }
    }
}

impl<T> Recent<T> {
    pub(super) fn len(&self) -> usize {
        self.older.len() + usize::from(self.newest.is_some())
    }

    pub(super) fn newest(&self) -> Option<&T> {
        self.newest.as_ref()
    }

    pub(super) fn oldest(&self) -> Option<&T> {
        self.older.front().or(self.newest.as_ref())
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        if at == self.older.len() {
            self.newest.as_ref()
        } else {
            self.older.get(at)
        }
    }

    /// Puts an element at a place, up to one behind the newest.
    pub(super) fn insert(&mut self, at: usize, element: T) {
        if at == self.len() {
            self.older.extend(self.newest.replace(element));
        } else {
            self.older.insert(at, element);
        }
    }

    pub(super) fn pop_oldest(&mut self) {
        if self.older.pop_front().is_none() {
            self.newest = None;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Where an element is, or would be, by a key that rises.
    pub(super) fn search_by_key<K: Ord>(
        &self,
        key: &K,
        key_of: impl Fn(&T) -> K,
    ) -> Result<usize, usize> {
        match &self.newest {
            Some(newest) if key_of(newest) == *key => Ok(self.older.len()),
            Some(newest) if key_of(newest) < *key => Err(self.len()),
            _ => self.older.binary_search_by_key(key, key_of),
        }
    }

    /// The elements behind a place.
    pub(super) fn after(&self, at: usize) -> impl Iterator<Item = &T> {
        (at + 1..self.len()).map(|at| &self[at])
    }

    /// The elements before a place, the nearest first.
    pub(super) fn before(&self, at: usize) -> impl Iterator<Item = &T> {
        (0..at).rev().map(|at| &self[at])
    }
}

impl<T> Index<usize> for Recent<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        self.get(at).expect("a place in the row")
    }
}

impl<T> IndexMut<usize> for Recent<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        let place = match at == self.older.len() {
            true => self.newest.as_mut(),
            false => self.older.get_mut(at),
        };
        place.expect("a place in the row")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It behaves as one sorted row.
        #[test]
        fn it_is_one_row(keys in proptest::collection::vec(0u8..40, 0..60)) {
            let mut recent = Recent::default();
            let mut model = Vec::new();
            for key in keys {
                let found = recent.search_by_key(&key, |element| *element);
                prop_assert_eq!(found, model.binary_search(&key));
                match found {
                    Ok(at) if at % 5 == 0 => {
                        recent.pop_oldest();
                        model.remove(0);
                    }
                    Ok(at) => recent[at] = key,
                    Err(at) => {
                        recent.insert(at, key);
                        model.insert(at, key);
                    }
                }
                prop_assert_eq!(recent.len(), model.len());
                prop_assert_eq!(recent.oldest(), model.first());
                prop_assert_eq!(recent.newest(), model.last());
                let middle = model.len() / 2;
                prop_assert!(recent.after(middle).eq(model.iter().skip(middle + 1)));
                prop_assert!(recent.before(middle).eq(model[..middle].iter().rev()));
                prop_assert_eq!(recent.get(model.len()), None);
            }
        }
    }
}
