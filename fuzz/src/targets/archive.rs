//! What an archive holds beside events: ledger, claim, journal, names of objects.

use std::sync::LazyLock;

use collector::archive::{Cursor as ChangesCursor, Liveness as _, Place, ThisProcess};
use collector::event::{Event, Fingerprint};
use collector::fuzzing::{is_left_behind, ledger_state, prune_tallies, remember, remember_proof, remembered};
use collector::ledger::{Claim, CommitKind, CommitRecord, CommittedObject, Ledger, LedgerDocument, Lineage};
use collector::query::Cursor;
use collector::store::Key;

use super::{ensure, kind_of, kind_of_result, now, size_of, text};
use crate::{Bound, Meter, Target};

const LEDGER_TOKENS: &[&str] = &[
    "\"seen_ids\":",
    "\"last_updated\":",
    "\"format\":1",
    "\"format\":2",
    "\"complete_after\":",
    "\"days\":",
    "\"fingerprints\":",
    "\"window\":",
    "\"rejected\":",
    "\"withdrawn\":",
    "\"claim\":",
    "\"objects\":",
    "\"until\":",
    "20260102",
    "\"000000000001\"",
    "0,",
    "[]",
    "\"lineage\":",
    "\"archive\":\"0123456789abcdef\"",
    "\"epoch\":1",
    "\"commits\":[[1,\"00000000000000aa\"]]",
    "\"last\":",
    "\"sequence\":1",
    "\"commit\":\"00000000000000aa\"",
    "\"in_journal\":true",
    "\"kind\":\"heal\"",
    "\"tallies\":",
    "\"events/2026/01/02/\":\"1:0123abcd\"",
    "\"digest\":",
    "\"replaces\":",
    "\"size_bytes\":",
    "9007199254740991",
];
const NAME_TOKENS: &[&str] = &[
    "events/",
    "revisions/",
    "rejected/",
    "withdrawn/",
    "metadata/",
    "2026/01/02/",
    "events-1767362400",
    "-2",
    ".jsonl",
    "metadata/ledger/000000000001.json",
    "metadata/trial-1767000000000000000-7",
    "0123456789abcdef",
    "+",
    ":",
    "..",
    "//",
    "-",
];

/// Largest sequence number of a commit.
const LAST_SEQUENCE: u64 = (1 << 53) - 1;

static THIS_PROCESS: LazyLock<ThisProcess> = LazyLock::new(ThisProcess::default);

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "ledger",
        run: ledger,
        bound: Bound { per_byte: 64, constant: 16 << 10 },
        tokens: LEDGER_TOKENS,
        short_run: 10_000,
    },
    Target {
        name: "claim",
        run: claim,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: LEDGER_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "journal",
        run: journal,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: LEDGER_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "proofs",
        run: proofs,
        bound: Bound { per_byte: 32, constant: 4 << 10 },
        tokens: &["oci://a/b at ", ", collector ", ", collector 0.1.0", "\n", "…", "a store"],
        short_run: 20_000,
    },
    Target {
        name: "memory",
        run: memory,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: &[
            "\"location\":",
            "\"archives\":",
            "\"mark\":",
            "\"archive\":\"0123456789abcdef\"",
            "\"sequence\":1",
            "\"commit\":\"00000000000000aa\"",
            "\"checked_at\":1767355200",
            "{\"mark\":{\"archive\":\"a\",\"sequence\":1,\"commit\":\"b\"},\"checked_at\":0}",
        ],
        short_run: 20_000,
    },
    Target {
        name: "store_key",
        run: store_key,
        bound: Bound { per_byte: 4, constant: 256 },
        tokens: NAME_TOKENS,
        short_run: 50_000,
    },
    Target {
        name: "cursor",
        run: cursor,
        bound: Bound { per_byte: 4, constant: 256 },
        tokens: NAME_TOKENS,
        short_run: 50_000,
    },
    Target {
        name: "changes_cursor",
        run: changes_cursor,
        bound: Bound { per_byte: 4, constant: 256 },
        tokens: NAME_TOKENS,
        short_run: 50_000,
    },
];

fn ledger(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    match meter.measure(|| LedgerDocument::parse(input)) {
        Err(error) => Ok(kind_of(&error.to_string())),
        Ok(LedgerDocument::Foreign { ids, .. }) => Ok(size_of(ids.len())),
        Ok(LedgerDocument::Own(ledger)) => {
            let written = ledger.to_document();
            match LedgerDocument::parse(&written) {
                Ok(LedgerDocument::Own(again)) if again == ledger => {}
                other => return Err(format!("{ledger:?} is read again as {other:?}")),
            }
            let (size, has_claim) = (size_of(ledger.len()), u64::from(ledger.claim.is_some()));
            let history = size_of(ledger.lineage.sequence()) << 8 | size_of(ledger.tallies.len());
            continues(*ledger)?;
            Ok(1 << 32 | history << 12 | size << 4 | has_claim)
        }
    }
}

/// A run continues from any ledger that can be read, and writes one that can be read.
fn continues(mut ledger: Ledger) -> Result<(), String> {
    if ledger.lineage.sequence() == LAST_SEQUENCE {
        return Ok(());
    }
    let (key, size_bytes) = ("events/2026/01/02/events-1767355200.jsonl", 17);
    if !ledger.lineage.is_known() {
        ledger.lineage = Lineage::new("0123456789abcdef".to_owned());
    }
    let before = ledger.lineage.mark();
    ledger.remember(Event { id: 7, day: now().date_naive(), fingerprint: Fingerprint::of_canonical(b"{}") });
    ledger.forget_oldest_outside_window();
    ledger.count_object(key, size_bytes);
    let object = CommittedObject { key: key.to_owned(), size_bytes, digest: String::new(), replaces: None };
    ledger.commit(CommitKind::Run, "a run", now().timestamp(), vec![object]);
    prune_tallies(&mut ledger);
    let after = ledger.lineage.mark();
    ensure(after.sequence == before.sequence + 1, || format!("{after:?} follows {before:?}"))?;
    match LedgerDocument::parse(&ledger.to_document()) {
        Ok(LedgerDocument::Own(again)) if *again == ledger => Ok(()),
        other => Err(format!("{ledger:?}, which is continued, is read again as {other:?}")),
    }
}

fn journal(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let record = meter.measure(|| CommitRecord::parse(input));
    if let Ok(record) = &record {
        let again = CommitRecord::parse(&record.to_document());
        ensure(again.as_ref() == Ok(record), || format!("{record:?} is read again as {again:?}"))?;
        let mut lineage = Lineage::new(record.archive.clone());
        lineage.follow(record.clone());
        let cursor = format!("{}:{}:{}", record.archive, record.sequence, record.commit);
        let parsed = cursor.parse::<ChangesCursor>().map(|cursor| cursor.to_string());
        ensure(parsed.as_ref() == Ok(&cursor), || {
            format!("{cursor} is not read back as a cursor: {parsed:?}")
        })?;
        let mut ledger = Ledger::default();
        ledger.lineage = lineage;
        continues(ledger)?;
    }
    Ok(kind_of_result(&record, |record| size_of(record.objects.len())))
}

/// What a machine remembers of archives.
fn memory(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let known = meter.measure(|| remembered(input));
    if let Ok(known) = &known {
        let fresh = known.iter().filter(|archive| archive.is_fresh(now())).count();
        let mut added = known.clone();
        for archive in known.iter().take(8) {
            remember(&mut added, archive.clone());
        }
        ensure(added.len() <= 4, || format!("{} archives are remembered", added.len()))?;
        let last = known.iter().take(8).next_back();
        ensure(added.last() == last, || format!("{added:?} does not end with {last:?}"))?;
        return Ok(size_of(known.len()) << 8 | size_of(fresh));
    }
    Ok(kind_of_result(&known, |_| 0))
}

/// An input is the proofs that a ledger remembers; its first line is also the one that is added.
fn proofs(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input).into_owned();
    let proof: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
    let proof = format!("{proof}, collector 1");
    let length = text.len();
    let mut ledger = Ledger::default();
    ledger.conditions = Some(text);
    let (before, after) = meter.measure(|| remember_proof(&mut ledger, &proof));
    ensure(after, || format!("`{proof}` is not remembered"))?;
    let remembered = ledger.conditions.unwrap_or_default();
    let (lines, chars) = (remembered.lines().count(), remembered.chars().count());
    ensure(lines <= 4 && chars <= 2_000, || format!("{lines} proofs of {chars} characters"))?;
    Ok(u64::from(before) << 16 | size_of(length) << 8 | lines as u64)
}

fn claim(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let claim = meter.measure(|| serde_json::from_slice::<Claim>(input));
    if let Ok(claim) = &claim {
        let (end, over) = (claim.end(), claim.is_over(now()));
        ensure(over || end > now() || end.timestamp() == 0, || format!("ends {end}, but over: {over}"))?;
        THIS_PROCESS.is_gone(&claim.owner);
        let written = serde_json::to_vec(claim).map_err(|error| error.to_string())?;
        let again: Claim = serde_json::from_slice(&written).map_err(|error| error.to_string())?;
        ensure(again == *claim, || format!("{claim:?} is read again as {again:?}"))?;
    }
    Ok(kind_of_result(&claim, |claim| size_of(claim.objects.len())))
}

fn store_key(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let name = text(input);
    let place = meter.measure(|| Place::of(&name));
    let Ok(key) = meter.measure(|| Key::new(name.as_ref())) else {
        return Ok(u64::from(place.is_some()));
    };
    ensure(key.as_str() == name, || format!("`{name}` became `{key}`"))?;
    let leads_out = name.split('/').any(|segment| segment.is_empty() || segment.starts_with('.'));
    ensure(!leads_out && name.bytes().all(|byte| byte.is_ascii_graphic()), || format!("`{name}` is a key"))?;
    if let Some((number, named)) = meter.measure(|| ledger_state(&key)) {
        ensure(named == key, || format!("`{key}` is taken for state {number} of the ledger, `{named}`"))?;
    }
    let left_behind = meter.measure(|| is_left_behind(&key, now()));
    ensure(!left_behind || name.starts_with("metadata/"), || format!("`{key}` is deleted"))?;
    if let Some(place) = place {
        let prefix = place.kind.day_prefix(place.day);
        ensure(name.starts_with(&prefix), || format!("`{name}` is taken to be in {prefix}"))?;
    }
    Ok(2 + u64::from(place.is_some()) + (u64::from(left_behind) << 1))
}

fn cursor(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let cursor = meter.measure(|| text.parse::<Cursor>());
    if let Ok(cursor) = &cursor {
        let again = cursor.to_string().parse();
        ensure(again.as_ref() == Ok(cursor), || format!("{cursor:?} is read again as {again:?}"))?;
    }
    Ok(u64::from(cursor.is_ok()))
}

fn changes_cursor(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let cursor = meter.measure(|| text.parse::<ChangesCursor>());
    if let Ok(cursor) = &cursor {
        let again = cursor.to_string().parse();
        ensure(again.as_ref() == Ok(cursor), || format!("{cursor:?} is read again as {again:?}"))?;
    }
    Ok(u64::from(cursor.is_ok()))
}
