//! Reads a page of S3's `ListObjectsV2`.
//!
//! The parser of `object_store` ignores the name of the root element and takes every member as optional, so that an HTML page
//! is an empty listing to it. Here a page has to be the document that the API describes.
//!
//! Source: `ListObjectsV2`, docs.aws.amazon.com.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::store::listing::Page;
use crate::text::server_text;

const ROOT: &str = "ListBucketResult";
/// `ListBucketResult/Contents/Owner/DisplayName`, and room for what may be added.
const MAX_DEPTH: usize = 8;

/// Reads a page of the listing of `prefix`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_page(body: &[u8], prefix: &str) -> Result<Page, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the listing is not UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let mut document = Document::default();
    loop {
        let event = reader.read_event().map_err(|error| format!("the listing is not valid XML: {error}"))?;
        match event {
            Event::Start(start) => document.open(&start)?,
            Event::Empty(start) => {
                document.open(&start)?;
                document.close()?;
            }
            Event::End(_) => document.close()?,
            Event::Text(text) => document.text.push_str(&String::from_utf8_lossy(&text)),
            Event::CData(text) => document.text.push_str(&String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => document.text.push(resolve(&reference)?),
            Event::DocType(_) => return Err("the listing is not a listing, but another document".to_owned()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    document.finish(prefix)
}

fn resolve(reference: &BytesRef<'_>) -> Result<char, String> {
    match &**reference {
        b"amp" => Ok('&'),
        b"lt" => Ok('<'),
        b"gt" => Ok('>'),
        b"quot" => Ok('"'),
        b"apos" => Ok('\''),
        // XML has no reference for NUL, which a name of somebody else can hold.
        [b'#', ..] => Ok(reference.resolve_char_ref().ok().flatten().unwrap_or('\0')),
        _ => Err("the listing holds an unknown entity".to_owned()),
    }
}

/// What was read so far.
#[derive(Default)]
struct Document {
    /// The names of the elements that are open.
    path: Vec<String>,
    text: String,
    is_closed: bool,
    key: Option<String>,
    size: Option<u64>,
    is_truncated: Option<bool>,
    prefix: Option<String>,
    key_count: Option<u64>,
    page: Page,
}

impl Document {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
        if self.path.is_empty() && (name != ROOT || self.is_closed) {
            let name = server_text(&name);
            return Err(format!("the listing is not a listing: its root element is <{name}>, not <{ROOT}>"));
        }
        if self.path.len() >= MAX_DEPTH {
            return Err("the listing is nested too deeply".to_owned());
        }
        self.path.push(name);
        self.text.clear();
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let text = std::mem::take(&mut self.text);
        let path: Vec<&str> = self.path.iter().skip(1).map(String::as_str).collect();
        let number =
            |what: &str| text.trim().parse().map_err(|_| format!("the listing states no valid {what}"));
        match path[..] {
            [] => self.is_closed = true,
            ["Contents", "Key"] => self.key = Some(text),
            ["Contents", "Size"] => self.size = Some(number("Size")?),
            ["Contents"] => {
                let object = self.key.take().zip(self.size.take());
                self.page.objects.push(object.ok_or("the listing holds an object without Key or Size")?);
            }
            ["IsTruncated"] => {
                let truncated = text.trim().parse();
                self.is_truncated = Some(truncated.map_err(|_| "the listing states no valid IsTruncated")?);
            }
            ["NextContinuationToken"] => self.page.next = Some(text).filter(|token| !token.is_empty()),
            ["Prefix"] => self.prefix = Some(text),
            ["KeyCount"] => self.key_count = Some(number("KeyCount")?),
            _ => {}
        }
        self.path.pop();
        Ok(())
    }

    fn finish(mut self, prefix: &str) -> Result<Page, String> {
        if !self.path.is_empty() || !self.is_closed {
            return Err("the listing is not complete, or is not a listing".to_owned());
        }
        if !self.text.trim().is_empty() {
            return Err("the listing is followed by something else".to_owned());
        }
        let is_truncated = self.is_truncated.ok_or("the listing does not state IsTruncated")?;
        if self.prefix.is_some_and(|stated| stated != prefix) {
            return Err("the listing states another Prefix than was asked for".to_owned());
        }
        let count = self.page.objects.len();
        if let Some(stated) = self.key_count.filter(|&stated| stated != count as u64) {
            return Err(format!("the listing states a KeyCount of {stated} and holds {count} objects"));
        }
        match (is_truncated, &self.page.next) {
            (true, None) => {
                return Err("the listing is truncated and does not state how it continues".to_owned());
            }
            (false, Some(_)) => self.page.next = None,
            _ => {}
        }
        Ok(self.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>a/</Prefix><KeyCount>2</KeyCount>
<MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated><Contents><Key>a/x &amp; &#38;<![CDATA[<]]></Key>
<LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>5</Size><Owner><ID>1</ID></Owner></Contents>
<Contents><Size>7</Size><Key>a/y</Key></Contents><NextContinuationToken>t=</NextContinuationToken></ListBucketResult>"#;

    fn error_of(body: &str) -> String {
        parse_page(body.as_bytes(), "a/").unwrap_err()
    }

    #[test]
    fn a_page_is_read() {
        let page = parse_page(TWO.as_bytes(), "a/").unwrap();
        assert_eq!(page.objects, [("a/x & &<".to_owned(), 5), ("a/y".to_owned(), 7)]);
        assert_eq!(page.next.as_deref(), Some("t="));
        let empty =
            "<ListBucketResult><IsTruncated>false</IsTruncated><Prefix>a/</Prefix></ListBucketResult>";
        assert_eq!(parse_page(empty.as_bytes(), "a/"), Ok(Page::default()));
    }

    #[test]
    fn no_prefix_of_a_page_is_a_page() {
        for end in 0..TWO.len() {
            assert!(parse_page(&TWO.as_bytes()[..end], "a/").is_err(), "{}", &TWO[..end]);
        }
    }

    #[test]
    fn other_documents_are_not_pages() {
        for body in [
            "",
            " ",
            "login",
            "{}",
            "<html><body>Log in</body></html>",
            "<!DOCTYPE html><html></html>",
            "<ListBucketResult/>",
            "<ListBucketResult></ListBucketResult>",
            "<Error><Code>AccessDenied</Code></Error>",
            "<ListAllMyBucketsResult><IsTruncated>false</IsTruncated></ListAllMyBucketsResult>",
        ] {
            assert!(parse_page(body.as_bytes(), "a/").is_err(), "{body}");
        }
        assert!(error_of("<html/>").contains("its root element is <html>"));
        assert!(error_of(&TWO.replace("<Size>7</Size>", "")).contains("without Key or Size"));
        assert!(error_of(&TWO.replace("<KeyCount>2", "<KeyCount>3")).contains("KeyCount of 3"));
        assert!(error_of(&TWO.replace("<Prefix>a/", "<Prefix>b/")).contains("another Prefix"));
        assert!(
            error_of(&TWO.replace("<NextContinuationToken>t=</NextContinuationToken>", ""))
                .contains("truncated")
        );
        assert!(error_of(&TWO.replace("<IsTruncated>true</IsTruncated>", "")).contains("IsTruncated"));
        assert!(error_of(&format!("{TWO}<html/>")).contains("<html>"));
        assert!(error_of(&format!("{TWO} login")).contains("something else"));
        assert!(error_of(&format!("<ListBucketResult>{}", "<a>".repeat(100))).contains("too deeply"));
    }
}
