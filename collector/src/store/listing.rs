//! Listings of remote stores, taken only if they can be a complete list of what was asked for.
//!
//! A page that a proxy or a captive portal sends, a page that was cut, or one that is repeated must never count as "there is
//! nothing". What the pages of a listing promise is checked here for both APIs: every name begins with the prefix, names
//! ascend over all pages, and each page but the last one states where the next one begins.

use tracing::warn;

use super::pages::{MAX_EMPTY_PAGES, MAX_OBJECTS};
use super::{Foreign, Key, ListPage, Listed, PageStart};
use crate::text::printable;

/// Largest page of a listing in bytes. A page of 1,000 of the longest names takes a third of it.
pub(super) const MAX_PAGE_BYTES: u64 = 16 * 1024 * 1024;
/// Maximum number of foreign names that are kept; more are counted.
const MAX_FOREIGN: usize = 1_000;

/// One page, as a parser has read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Names and sizes in the order of the page.
    pub(crate) objects: Vec<(String, u64)>,
    /// What to ask for the next page with; nothing on the last page.
    pub(crate) next: Option<String>,
}

/// A complete listing.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The objects whose names are valid, in order.
    pub(super) objects: Vec<Listed>,
    /// Names that no object of ours can have, at most [`MAX_FOREIGN`].
    pub(super) foreign: Vec<String>,
    /// How many such names there are.
    pub(super) foreign_count: usize,
}

impl Listing {
    /// The objects; that others are left out is written to the log.
    pub(crate) fn into_objects(self, location: &str) -> Vec<Listed> {
        if self.foreign_count > 0 {
            let count = self.foreign_count;
            warn!(count, location, "objects with foreign names are skipped; `collector verify` names them");
        }
        self.objects
    }

    /// The names that are left out.
    pub(super) fn foreign_names(&self) -> Vec<Foreign> {
        let mut foreign: Vec<Foreign> =
            self.foreign.iter().map(|name| foreign_of(&name.escape_debug())).collect();
        let more = self.foreign_count - foreign.len();
        if more > 0 {
            foreign.push(foreign_of(&format!("and {more} more")));
        }
        foreign
    }
}

fn foreign_of(name: &impl ToString) -> Foreign {
    Foreign { name: name.to_string(), reason: "a name that no object can have" }
}

/// The pages of one listing so far.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    /// What all names of the store begin with; empty, or ends with `/`.
    root: &'a str,
    /// What the listed names begin with, after the root.
    prefix: &'a str,
    listing: Listing,
    token: Option<String>,
    empty: usize,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(root: &'a str, prefix: &'a str) -> Self {
        Self { root, prefix, listing: Listing::default(), token: None, empty: 0 }
    }

    /// What the names in the store begin with.
    pub(super) fn full_prefix(&self) -> String {
        format!("{}{}", self.root, self.prefix)
    }

    /// Where the next page begins.
    pub(super) fn start(&self) -> PageStart {
        self.token.clone().map_or(PageStart::First, PageStart::Token)
    }

    /// Takes a page. Returns whether another one follows.
    ///
    /// # Errors
    /// What is wrong with the page, if it cannot belong to this listing.
    pub(crate) fn take(&mut self, page: Page) -> Result<bool, String> {
        self.empty = if page.objects.is_empty() { self.empty + 1 } else { 0 };
        for (name, size_bytes) in page.objects {
            self.take_object(&name, size_bytes)?;
        }
        if self.listing.objects.len() + self.listing.foreign_count > MAX_OBJECTS {
            return Err(format!("the listing has more than {MAX_OBJECTS} objects"));
        }
        if page.next.is_some() && self.empty > MAX_EMPTY_PAGES {
            return Err(format!("the listing has more than {MAX_EMPTY_PAGES} pages without an object"));
        }
        if page.next.is_some() && page.next == self.token {
            return Err("the listing repeats a page: the next one begins where this one does".to_owned());
        }
        self.token = page.next;
        Ok(self.token.is_some())
    }

    fn take_object(&mut self, name: &str, size_bytes: u64) -> Result<(), String> {
        let own = name.strip_prefix(self.root).filter(|own| own.starts_with(self.prefix));
        let Some(own) = own else {
            let prefix = self.full_prefix();
            return Err(format!(
                "the listing holds the name {}, which does not begin with `{prefix}`",
                shown(name)
            ));
        };
        // Servers do not agree on the order of characters that no name of ours holds.
        let Ok(key) = Key::new(own) else {
            self.listing.foreign_count += 1;
            if self.listing.foreign.len() < MAX_FOREIGN {
                self.listing.foreign.push(own.to_owned());
            }
            return Ok(());
        };
        if self.listing.objects.last().is_some_and(|last| last.key >= key) {
            return Err(format!(
                "the listing is not in order, or repeats a page, at the name {}",
                shown(name)
            ));
        }
        self.listing.objects.push(Listed { key, size_bytes });
        Ok(())
    }

    /// The page that was taken, if it was the only one.
    pub(super) fn into_page(self, location: &str, start: &PageStart) -> ListPage {
        let next = self.token.clone();
        let foreign = self.listing.foreign_names();
        ListPage { objects: self.listing.into_objects(location), next, foreign, ..ListPage::default() }
            .from_start(start)
    }

    pub(crate) fn finish(self) -> Listing {
        self.listing
    }
}

fn shown(name: &str) -> String {
    format!("`{}`", printable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str], next: Option<&str>) -> Page {
        let objects = names.iter().map(|&name| (name.to_owned(), 1)).collect();
        Page { objects, next: next.map(str::to_owned) }
    }

    fn error_of(pages: &[Page]) -> String {
        let mut taken = Pages::new("root/", "events/");
        let results = pages.iter().map(|page| taken.take(page.clone()));
        results.collect::<Result<Vec<_>, _>>().unwrap_err()
    }

    #[test]
    fn pages_in_order_are_one_listing() {
        let mut pages = Pages::new("root/", "events/");
        assert_eq!(pages.take(page(&["root/events/a", "root/events/a b"], Some("t"))), Ok(true));
        assert_eq!(pages.start(), PageStart::Token("t".to_owned()));
        assert_eq!(pages.take(page(&[], Some("u"))), Ok(true));
        assert_eq!(pages.take(page(&["root/events/a//c", "root/events/b"], None)), Ok(false));
        let Listing { objects, foreign, foreign_count } = pages.finish();
        let names: Vec<_> = objects.iter().map(|listed| listed.key.as_str()).collect();
        assert_eq!(names, ["events/a", "events/b"]);
        assert_eq!((foreign, foreign_count), (vec!["events/a b".to_owned(), "events/a//c".to_owned()], 2));
    }

    #[test]
    fn a_repeated_page_is_an_error() {
        let first = page(&["root/events/a"], Some("t"));
        assert!(error_of(&[first.clone(), first]).contains("repeats a page"));
        assert!(error_of(&[page(&[], Some("t")), page(&[], Some("t"))]).contains("repeats a page"));
        let endless: Vec<_> = (0..200).map(|number| page(&[], Some(&number.to_string()))).collect();
        assert!(error_of(&endless).contains("without an object"));
    }

    #[test]
    fn a_name_outside_the_prefix_is_an_error() {
        for name in ["other/events/a", "root/metadata/a", "events/a", ""] {
            assert!(error_of(&[page(&[name], None)]).contains("does not begin with"), "{name}");
        }
    }

    #[test]
    fn names_out_of_order_are_an_error() {
        assert!(error_of(&[page(&["root/events/b", "root/events/a"], None)]).contains("not in order"));
        assert!(error_of(&[page(&["root/events/b", "root/events/b"], None)]).contains("not in order"));
    }

    #[test]
    fn names_are_escaped_in_errors() {
        let error = error_of(&[page(&["\u{1b}[31m\n\u{202e}"], None)]);
        assert!(!error.contains(['\u{1b}', '\n', '\u{202e}']), "{error:?}");
    }
}
