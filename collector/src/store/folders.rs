//! Walks the folders of a local store in the order of the names of its objects, a few folders at a time.

use std::io;

use rustc_hash::FxHashSet;

use super::disk::{Disk, Entry, EntryKind, LEADS_NOWHERE};
use super::local::Folder;
use super::{Foreign, Key, Listed, UnreadableFolder};
use crate::files::FileKind;

/// Most folders above an object. An archive has no more than six.
const MOST_NESTED: usize = 16;

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    prefix: String,
    /// The folder where the walk begins.
    deepest: String,
    /// Only what comes after this name.
    after: String,
    /// What is still to be looked at, the next one last.
    waiting: Vec<Item>,
    /// Folders elsewhere that were read by way of a link.
    linked: FxHashSet<std::path::PathBuf>,
    /// What is not an object.
    pub(super) foreign: Vec<Foreign>,
    /// Folders that could not be read.
    pub(super) unreadable: Vec<UnreadableFolder>,
}

#[derive(Debug)]
enum Item {
    Object(Listed),
    Folder(String),
    Link(String),
    /// A link that leads nowhere: an archive's folder may be on a disk that is away.
    LostLink(String),
}

impl Item {
    /// The name, and of folders the beginning of the names in them.
    fn order(&self) -> (&str, &str) {
        match self {
            Self::Object(listed) => (listed.key.as_str(), ""),
            Self::Folder(path) | Self::Link(path) | Self::LostLink(path) => (path, "/"),
        }
    }
}

impl Walk {
    /// Everything whose name begins with `prefix` and comes after a name.
    pub(super) fn new(prefix: &str, after: &str) -> Self {
        // Only the folder that the prefix names can hold matches, and what is below it.
        let deepest = prefix.rfind('/').map_or("", |end| &prefix[..end]);
        Self {
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            deepest: deepest.to_owned(),
            waiting: vec![Item::Folder(deepest.to_owned())],
            linked: FxHashSet::default(),
            foreign: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Adds the objects of whole folders until there are `count`. Whether there may be more; behind the last of them.
    pub(super) fn read<D: Disk>(
        &mut self,
        folder: &Folder<D>,
        count: usize,
        objects: &mut Vec<Listed>,
    ) -> io::Result<bool> {
        while let Some(item) = self.waiting.pop() {
            let path = match item {
                Item::Object(listed) => {
                    objects.push(listed);
                    continue;
                }
                // Between two folders. What a link led to is known to this walk alone, so it then goes to the end.
                item if objects.len() >= count && self.linked.is_empty() => {
                    self.waiting.push(item);
                    return Ok(true);
                }
                Item::Folder(path) => path,
                Item::LostLink(name) => {
                    self.unreadable.push(UnreadableFolder { name, reason: LEADS_NOWHERE.to_owned() });
                    continue;
                }
                Item::Link(path) if self.is_followed(folder, &path)? => path,
                Item::Link(name) => {
                    let reason = "a symbolic link to a folder that is read under another name";
                    self.foreign.push(Foreign { name, reason });
                    continue;
                }
            };
            match folder.disk().entries(&folder.root().join(&path)) {
                Ok(entries) => self.take(&path, entries),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if path == self.deepest => return Err(error),
                // What else is listed is worth having, and this is named.
                Err(error) => {
                    self.unreadable.push(UnreadableFolder { name: path, reason: error.to_string() });
                }
            }
        }
        Ok(false)
    }

    /// A link to what is part of the store, or was read already, is not followed.
    fn is_followed<D: Disk>(&mut self, folder: &Folder<D>, link: &str) -> io::Result<bool> {
        let (disk, root) = (folder.disk(), folder.root());
        let (target, root) = (disk.resolve(&root.join(link))?, disk.resolve(root)?);
        Ok(!target.starts_with(&root) && !root.starts_with(&target) && self.linked.insert(target))
    }

    fn take(&mut self, folder: &str, entries: Vec<Entry>) {
        let items = entries.into_iter().filter_map(|entry| self.item(folder, entry));
        let mut items: Vec<Item> = items.collect();
        items.retain(|item| self.is_wanted(item));
        items.sort_unstable_by(|one, other| {
            let bytes = |item: &Item| {
                let (name, end) = item.order();
                name.bytes().chain(end.bytes()).collect::<Vec<u8>>()
            };
            match (one, other) {
                (Item::Object(one), Item::Object(other)) => other.cmp(one),
                _ => bytes(other).cmp(&bytes(one)),
            }
        });
        self.waiting.extend(items);
    }

    fn is_wanted(&self, item: &Item) -> bool {
        match item {
            Item::Object(Listed { key, .. }) => {
                key.as_str().starts_with(&self.prefix) && key.as_str() > self.after.as_str()
            }
            Item::Folder(path) | Item::Link(path) | Item::LostLink(path) => {
                let within = |text: &str| {
                    let common = path.len().min(text.len());
                    path.as_bytes()[..common] == text.as_bytes()[..common]
                };
                // Its names begin with the path: they come after the name if the path does, or continues it.
                within(&self.prefix) && (within(&self.after) || path.as_str() > self.after.as_str())
            }
        }
    }

    fn item(&mut self, folder: &str, entry: Entry) -> Option<Item> {
        // Hidden files are those of the store itself, and of file systems and tools.
        if entry.name.starts_with('.') {
            return None;
        }
        let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
        let reason = match (Key::new(path.as_str()), entry.kind) {
            (Ok(_), EntryKind::Other(LEADS_NOWHERE)) if path.strip_suffix(".jsonl").is_none() => {
                return Some(Item::LostLink(path));
            }
            (_, EntryKind::Other(reason)) => reason,
            (Err(_), _) => "a name that no object can have",
            (Ok(key), EntryKind::File { size_bytes }) => {
                return Some(Item::Object(Listed { key, size_bytes }));
            }
            (Ok(_), _) if path.strip_suffix(".jsonl").is_some() => FileKind::Folder.describe(),
            (Ok(_), _) if path.matches('/').count() >= MOST_NESTED => "a folder that is nested too deeply",
            (Ok(_), EntryKind::Folder) => return Some(Item::Folder(path)),
            (Ok(_), EntryKind::LinkToFolder) => return Some(Item::Link(path)),
        };
        self.foreign.push(Foreign { name: path.escape_debug().to_string(), reason });
        None
    }
}
