//! What is kept between processes: a file an entry, which says itself what it is.
//!
//! Every file appears whole or not at all and carries a checksum; what cannot be read, or belongs to somebody else, is as good
//! as absent. The files used last stay when there is too much.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tracing::{debug, warn};
use twox_hash::XxHash3_64;

use crate::files::private;

use super::{CacheMetrics, Content, DiskOptions, KeptOnDisk};

const ENTRIES: &str = "entries";
const USED: &str = "used.json";
const LOCK: &str = ".lock";
/// Maximum time to wait for another process that counts. What it takes longer is left out of the counters.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// The file of counters is not larger.
const USED_LIMIT_BYTES: u64 = 1 << 16;
/// That a file was used is noted on it at most so often.
const NOTED_EVERY: Duration = Duration::from_hours(1);
/// Written so much of the limit, a process looks whether there is too much.
const TRIM_AFTER: u64 = 8;

/// An entry as it was found.
pub(super) struct Kept {
    pub(super) content: Vec<u8>,
    /// When it was written, in milliseconds since 1970.
    pub(super) written_ms: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    options: Arc<DiskOptions>,
    written: Arc<AtomicU64>,
    evicted: Arc<AtomicU64>,
    /// Whether it was said that nothing can be kept.
    complained: Arc<AtomicBool>,
}

impl Disk {
    pub(super) fn new(options: DiskOptions) -> Self {
        Self {
            options: Arc::new(options),
            written: Arc::default(),
            evicted: Arc::default(),
            complained: Arc::default(),
        }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let disk = self.clone();
        tokio::task::spawn_blocking(move || work(&disk)).await.ok()
    }

    pub(super) async fn get(&self, name: &str) -> Option<Kept> {
        let name = name.to_owned();
        self.blocking(move |disk| disk.read(&name)).await?
    }

    pub(super) async fn put(&self, name: &str, written_ms: i64, content: Content) {
        let name = name.to_owned();
        let put = self.blocking(move |disk| {
            disk.write(&name, written_ms, &content)?;
            if disk.written.load(Ordering::Relaxed) > disk.options.limit_bytes / TRIM_AFTER {
                disk.trim()?;
            }
            Ok::<_, io::Error>(())
        });
        if let Some(Err(error)) = put.await
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            warn!(folder = %self.options.folder.display(), %error, "nothing can be kept in the cache on disk");
        }
    }

    pub(super) async fn remove(&self, name: &str) {
        let name = name.to_owned();
        self.blocking(move |disk| {
            if let Err(error) = fs::remove_file(disk.path(&name))
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(folder = %disk.options.folder.display(), %error, "an outdated entry cannot be removed; `collector cache clear`");
            }
        })
        .await;
    }

    pub(super) async fn clear(&self) -> io::Result<u64> {
        let cleared = self.blocking(|disk| {
            let bytes = disk.files().iter().map(|file| file.size_bytes).sum();
            let gone = |result: io::Result<()>| match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
            gone(fs::remove_dir_all(disk.options.folder.join(ENTRIES)))?;
            gone(fs::remove_file(disk.options.folder.join(USED)))?;
            Ok(bytes)
        });
        cleared.await.unwrap_or_else(|| Err(io::Error::other("the work broke off")))
    }

    pub(super) async fn survey(&self) -> KeptOnDisk {
        let survey = self.blocking(|disk| {
            let files = disk.files();
            KeptOnDisk {
                entries: files.len() as u64,
                bytes: files.iter().map(|file| file.size_bytes).sum(),
                limit_bytes: disk.options.limit_bytes,
                used: disk.used(),
            }
        });
        survey.await.unwrap_or_default()
    }

    pub(super) async fn close(&self, metrics: CacheMetrics) {
        let closed = self.blocking(move |disk| {
            if disk.written.load(Ordering::Relaxed) > 0 {
                disk.trim()?;
            }
            disk.add_up(metrics)
        });
        if let Some(Err(error)) = closed.await {
            debug!(folder = %self.options.folder.display(), %error, "how the cache was used cannot be noted");
        }
    }

    /// Makes the folder. The one that it is in holds those of other stores.
    fn make_folder(&self) -> io::Result<()> {
        self.options.folder.parent().map_or(Ok(()), private::make_folder)?;
        private::make_folder(&self.options.folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        let number = format!("{:016x}", XxHash3_64::oneshot(name.as_bytes()));
        self.options.folder.join(ENTRIES).join(&number[..2]).join(&number[2..])
    }

    /// What a file of this name must begin with, after its checksum and time.
    fn title(&self, name: &str) -> String {
        format!("{}\t{name}", self.options.owner)
    }

    fn read(&self, name: &str) -> Option<Kept> {
        let (mut content, file) = private::read(&self.path(name), self.options.limit_bytes).ok()?;
        let (written_ms, start) = parse_head(&content, &self.title(name))?;
        content.drain(..start);
        let now = SystemTime::now();
        let noted = file.metadata().and_then(|metadata| metadata.modified()).unwrap_or(now);
        if now.duration_since(noted).is_ok_and(|age| age > NOTED_EVERY) {
            let _ = file.set_modified(now);
        }
        Some(Kept { content, written_ms })
    }

    fn write(&self, name: &str, written_ms: i64, content: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.options.folder);
        self.make_folder()?;
        private::make_folder(folder)?;
        let head = head(written_ms, content, &self.title(name));
        let mut staged = private::stage(folder, head.as_bytes())?;
        staged.write_all(content)?;
        staged.persist(path).map_err(|error| error.error)?;
        self.written.fetch_add((head.len() + content.len()) as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Lets go of the files that were used longest ago, until a tenth of the room is free.
    fn trim(&self) -> io::Result<()> {
        self.written.store(0, Ordering::Relaxed);
        let mut files = self.files();
        let mut bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        if bytes <= self.options.limit_bytes {
            return Ok(());
        }
        let enough = self.options.limit_bytes / 10 * 9;
        files.sort_by_key(|file| file.used);
        for file in files {
            if bytes <= enough {
                break;
            }
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            bytes -= file.size_bytes;
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn files(&self) -> Vec<KeptFile> {
        let folders = fs::read_dir(self.options.folder.join(ENTRIES)).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(KeptFile {
                    path: entry.path(),
                    size_bytes: metadata.len(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                })
            })
            .collect()
    }

    fn used(&self) -> CacheMetrics {
        let used = private::read(&self.options.folder.join(USED), USED_LIMIT_BYTES).map(|(text, _)| text);
        serde_json::from_slice(&used.unwrap_or_default()).unwrap_or_default()
    }

    fn add_up(&self, metrics: CacheMetrics) -> io::Result<()> {
        self.make_folder()?;
        let lock = private::open(&self.options.folder.join(LOCK))?;
        private::lock(&lock, LOCK_PATIENCE)?;
        let evictions = self.evicted.swap(0, Ordering::Relaxed);
        // What one process has in memory is nothing to the others.
        let metrics = CacheMetrics { evictions, ..metrics };
        let used = self.used().plus(metrics);
        let staged = private::stage(&self.options.folder, &serde_json::to_vec(&used)?)?;
        staged.persist(self.options.folder.join(USED)).map_err(|error| error.error)?;
        Ok(())
    }
}

struct KeptFile {
    path: PathBuf,
    size_bytes: u64,
    used: SystemTime,
}

/// When the content of a file was written and where it starts, if it has this title and is whole.
pub(crate) fn parse_head(file: &[u8], title: &str) -> Option<(i64, usize)> {
    let end = file.iter().position(|&byte| byte == b'\n')?;
    let head = std::str::from_utf8(&file[..end]).ok()?;
    let mut head = head.splitn(3, ' ');
    let (check, written_ms, found) = (head.next()?, head.next()?.parse().ok()?, head.next()?);
    (found == title && check == checksum(&file[end + 1..])).then_some((written_ms, end + 1))
}

/// What a file begins with.
pub(crate) fn head(written_ms: i64, content: &[u8], title: &str) -> String {
    format!("{} {written_ms} {title}\n", checksum(content))
}

fn checksum(content: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(content))
}
