//! Dossiers, material and closings, read out of what the machine has stored.
//!
//! This module signs nothing and opens nothing: headers lie under retention keys at rest, and that is all it undoes.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufWriter, Write as _},
};

use chancery_client::{Client, machine::Space};
use chancery_protocol::{
    capture::{
        group::SegmentRecord,
        log::entry_key,
        office::{CaseRecord, case_key},
        seal_entry::{capture_key, lines_key, record_key},
    },
    escrow::{
        RecordLine, Scope, ScopeHeader,
        dossier::{Dossier, DossierSegment, EarlierCheckpoint, EarlierRequest, MaterialItem},
        export::{Closing, LoggedEntry},
        opening::Request,
        retention::Period,
    },
    ids::{GroupId, OpeningHash, SegmentId},
    limits::DOSSIER_EARLIER_MAX,
    merkle::{Tile, TileCache, consistency_proof, inclusion_proof, tile},
    wire::{Blob, decode_exact},
};

use super::{Intake, OUT, SHOWN};
use crate::{
    endpoint::Desk,
    officers::files::{at, read, replace},
};

/// Rows that are read at once.
const PAGE: usize = 1_000;

fn damaged(what: &str) -> String {
    format!("{what} does not decode: the node's folder is damaged")
}

/// The archive's log under one checkpoint.
pub(super) struct LogAt<'a> {
    desk: &'a Desk,
    note: Vec<u8>,
    size: u64,
    tiles: TileCache,
    loaded: BTreeSet<Tile>,
}

impl LogAt<'_> {
    async fn load(&mut self, tiles: BTreeSet<Tile>) -> Result<(), String> {
        for tile in tiles {
            if !self.loaded.contains(&tile) {
                let bytes = self.desk.tile(&tile).await.map_err(|error| error.to_string())?;
                self.tiles.add(tile, &bytes.ok_or_else(|| damaged("the archive's log"))?);
                self.loaded.insert(tile);
            }
        }
        Ok(())
    }

    pub(super) async fn logged(&mut self, index: u64) -> Result<LoggedEntry, String> {
        self.load(tile::inclusion_tiles(index, self.size)).await?;
        let entry = self.desk.value(Space::ArchiveEntry, entry_key(index)).await.map_err(|error| error.to_string())?;
        let inclusion = inclusion_proof(index, self.size, &mut self.tiles);
        match (entry, inclusion) {
            (Some(entry), Some(inclusion)) => Ok(LoggedEntry { entry: Blob(entry), index, inclusion }),
            _ => Err(damaged("the archive's log")),
        }
    }

    async fn continues(&mut self, old: u64) -> Result<Vec<chancery_protocol::ids::MerkleHash>, String> {
        self.load(tile::consistency_tiles(old, self.size)).await?;
        consistency_proof(old, self.size, &mut self.tiles).ok_or_else(|| damaged("the archive's log"))
    }
}

async fn value(client: &Client, space: Space, key: Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let rows = client.rows(space, key.clone(), 1).await.map_err(|error| error.to_string())?;
    Ok(rows.into_iter().find(|(found, _)| *found == key).map(|(_, value)| value))
}

impl Intake {
    /// The log under its newest checkpoint.
    pub(super) async fn log(&self) -> Result<LogAt<'_>, String> {
        let newest = self.desk.checkpoint().await.map_err(|error| error.to_string())?;
        let (note, size) = newest.ok_or_else(|| damaged("the archive's checkpoint"))?;
        Ok(LogAt { desk: &self.desk, note, size, tiles: TileCache::new(size), loaded: BTreeSet::new() })
    }

    async fn segment(&self, id: SegmentId) -> Result<(SegmentRecord, ScopeHeader), String> {
        let row = value(&self.client, Space::Segment, id.as_bytes().to_vec()).await?;
        let record: SegmentRecord =
            row.and_then(|row| decode_exact("", &row).ok()).ok_or_else(|| damaged("a segment"))?;
        let scope = Scope::from_bytes(&record.scope).ok_or_else(|| damaged("a segment"))?;
        let period = Period::of(&scope);
        let key = self.retention.key(&period)?.ok_or_else(|| format!("the retention key of {period} is missing"))?;
        let header = key.open(record.header, &record.sealed_header).ok_or_else(|| damaged("a segment's header"))?;
        Ok((record, header))
    }

    /// What the seats are given. (opening.dossier.3)
    pub(super) async fn dossier(
        &self,
        log: &mut LogAt<'_>,
        request: OpeningHash,
        log_index: u64,
        segments: &[SegmentId],
    ) -> Result<Dossier, String> {
        let case = self.case(request).await?.ok_or_else(|| damaged("a request"))?;
        let (mut listed, mut groups) = (Vec::new(), BTreeSet::new());
        for id in segments {
            let (record, header) = self.segment(*id).await?;
            groups.insert(header.scope().group);
            let closed = record.closed_index.ok_or_else(|| damaged("a segment"))?;
            listed.push(DossierSegment { header: Blob(header.to_bytes()), closed: log.logged(closed).await? });
        }
        let earlier = self.earlier(log).await?;
        let before = self.before(log, request, &groups).await?;
        Ok(Dossier {
            version: Dossier::VERSION,
            request: case.request,
            requested: log.logged(log_index).await?,
            checkpoint: Blob(log.note.clone()),
            earlier,
            segments: listed,
            before,
        })
    }

    /// The checkpoints of earlier dossiers; this one's is kept for the next.
    async fn earlier(&self, log: &mut LogAt<'_>) -> Result<Vec<EarlierCheckpoint>, String> {
        let folder = self.dir.join(SHOWN);
        let mut sizes: Vec<u64> = fs::read_dir(&folder)
            .map_err(at(&folder))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|size| *size < log.size)
            .collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        sizes.truncate(DOSSIER_EARLIER_MAX);
        let mut earlier = Vec::new();
        for size in sizes {
            let checkpoint = Blob(read(&folder.join(size.to_string()), 1 << 20)?);
            earlier.push(EarlierCheckpoint { checkpoint, consistency: log.continues(size).await? });
        }
        replace(&folder.join(log.size.to_string()), &log.note)?;
        Ok(earlier)
    }

    async fn case(&self, request: OpeningHash) -> Result<Option<CaseRecord>, String> {
        let row = value(&self.client, Space::Office, case_key(request)).await?;
        row.map(|row| decode_exact("", &row).map_err(|_| damaged("a request"))).transpose()
    }

    /// Earlier requests for the same groups, newest first.
    async fn before(
        &self,
        log: &mut LogAt<'_>,
        own: OpeningHash,
        groups: &BTreeSet<GroupId>,
    ) -> Result<Vec<EarlierRequest>, String> {
        let mut cases: Vec<CaseRecord> = Vec::new();
        let mut from = b"c".to_vec();
        loop {
            let rows = self.client.rows(Space::Office, from, PAGE).await.map_err(|error| error.to_string())?;
            let Some((last, _)) = rows.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            let more = rows.len() == PAGE;
            for (_, row) in rows.iter().filter(|(key, _)| key.starts_with(b"c")) {
                cases.push(decode_exact("", row).map_err(|_| damaged("a request"))?);
            }
            if !more {
                break;
            }
        }
        cases.sort_by_key(|case| core::cmp::Reverse(case.log_index));
        let mut before = Vec::new();
        for case in cases {
            let request = Request::of_signed(&case.request).ok_or_else(|| damaged("a request"))?;
            let shares = case.groups.iter().any(|group| groups.contains(group));
            if request.hash() == own || before.len() >= DOSSIER_EARLIER_MAX || !shares {
                continue;
            }
            let requested = log.logged(case.log_index).await?;
            let opened = match case.opened.filter(|(index, _)| *index < log.size) {
                Some((index, _)) => Some(log.logged(index).await?),
                None => None,
            };
            before.push(EarlierRequest { request: case.request, requested, opened });
        }
        Ok(before)
    }

    /// What the workstation is given: everything sealed of these segments, and where it stands in the log.
    pub(super) async fn material(
        &self,
        log: &mut LogAt<'_>,
        dossier: &Dossier,
        segments: &[SegmentId],
    ) -> Result<(), String> {
        let request = Request::of_signed(&dossier.request).ok_or_else(|| damaged("a request"))?.hash();
        let (path, fresh) =
            (self.out(&request.to_string(), "material"), self.dir.join(OUT).join(format!(".{request}.new")));
        let mut file = BufWriter::new(fs::File::create(&fresh).map_err(at(&fresh))?);
        let mut put = |item: &MaterialItem| file.write_all(&item.to_frame()).map_err(at(&fresh));
        put(&MaterialItem::Begin {
            version: MaterialItem::VERSION,
            request,
            requested: dossier.requested.clone(),
            checkpoint: dossier.checkpoint.clone(),
        })?;
        for (id, listed) in segments.iter().zip(&dossier.segments) {
            let (record, _) = self.segment(*id).await?;
            put(&MaterialItem::Segment {
                header: listed.header.clone(),
                opened: log.logged(record.opened_index).await?,
                closed: listed.closed.clone(),
            })?;
            let mut first = 0;
            while first < record.records {
                let row = value(&self.client, Space::Capture, capture_key(*id, first)).await?;
                let log_index: u64 =
                    row.and_then(|row| decode_exact("", &row).ok()).ok_or_else(|| damaged("a capture"))?;
                let row = value(&self.client, Space::Lines, lines_key(log_index)).await?;
                let lines: Vec<RecordLine> =
                    row.and_then(|row| decode_exact("", &row).ok()).ok_or_else(|| damaged("a capture"))?;
                let count = lines.len() as u64;
                if count == 0 {
                    return Err(damaged("a capture"));
                }
                put(&MaterialItem::Capture { logged: log.logged(log_index).await?, lines })?;
                let mut index = first;
                while index < first + count {
                    let wanted = usize::try_from(first + count - index).unwrap_or(PAGE).min(PAGE);
                    let rows = self.client.rows(Space::Record, record_key(*id, index), wanted);
                    let rows = rows.await.map_err(|error| error.to_string())?;
                    if rows.len() < wanted {
                        return Err(damaged("a segment"));
                    }
                    index += rows.len() as u64;
                    for (_, sealed) in rows {
                        put(&MaterialItem::Record(Blob(sealed)))?;
                    }
                }
                first += count;
            }
        }
        put(&MaterialItem::End)?;
        let file = file.into_inner().map_err(|error| error.to_string())?;
        file.sync_all().map_err(at(&fresh))?;
        fs::rename(&fresh, &path).map_err(at(&path))
    }

    /// The entry that closes a request, from the checkpoint of so many entries on.
    pub(super) async fn closing(&self, log_index: u64, from: u64) -> Result<Closing, String> {
        let mut log = self.log().await?;
        if from > log.size {
            return Err("the export's checkpoint is ahead of this log".to_owned());
        }
        let consistency = log.continues(from).await?;
        Ok(Closing { logged: log.logged(log_index).await?, checkpoint: Blob(log.note.clone()), consistency })
    }
}
