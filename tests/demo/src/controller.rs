//! The demo from beginning to end: found, enrol, play with crashes, close, search, judge.
//!
//! This module does not know how any of it is done.

mod close;
mod stage;

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::{signal, time::sleep};

use self::stage::Stage;
pub use self::stage::StartError;
use crate::{
    archive, faults, leak,
    ledger::Ledger,
    plaintext::{Findings, Search},
    plan::{Home, Plan, PlannedMessage},
    play,
    progress::Progress,
    report::{Figures, Summary},
};

/// Without any change for so long, the demo gives up and says what is missing.
const STALL: Duration = Duration::from_secs(60);
/// After everything has come, for so long nothing more may come.
const QUIET: Duration = Duration::from_millis(500);
const SAMPLES: usize = 8;

/// Plays a plan.
///
/// # Errors
/// It could not be started. A broken promise is not an error: the summary tells.
pub async fn run(plan: &Plan, keep: bool, mut progress: Progress) -> Result<Summary, StartError> {
    let control_text = crate::canary::pad("").map_err(|error| StartError::Io(std::io::Error::other(error)))?;
    let mut texts: Vec<&str> = plan.messages().map(|message| message.text.as_str()).collect();
    texts.extend(plan.groups.iter().map(|group| group.title.as_str()));
    texts.push(&control_text);
    let mut search = Search::new(texts.iter().copied());

    let mut stage = Stage::set(plan, &progress).await?;
    search.ignore_present(stage.relay.folder()).map_err(StartError::Io)?;

    let deliveries: usize = plan.messages().map(|message| message.readers().count()).sum();
    let ledger = stage.cast.ledger.clone();
    progress.watch(&ledger, plan.messages().count() as u64, deliveries as u64);
    let crashes = act(&mut stage, plan, &progress).await;
    progress.done();

    progress.say("everything that will come has come; asking everybody for the last epochs");
    let epochs = close::reports(&stage, plan).await;
    close::stop_clients(&stage).await;
    let said = ledger.said();
    let mut opened = None;
    if let Some(escrow) = &mut stage.escrow {
        escrow.until_sealed(said.iter().filter(|said| said.escrowed).count() as u64).await;
        progress.say("two of five officers try to open the archive, and three do");
        opened = ledger.unless(escrow.open_case().await);
    }
    progress.say("everybody has stopped; searching what the relay and the escrow node have kept");
    let mut found = search_relay(&mut stage, &search, &ledger).await;
    let (mut counted, opened) = (archive::Counted::default(), opened.unwrap_or_default());
    if let Some(escrow) = &stage.escrow {
        found.merge(keep_books(&ledger, search.run(&escrow.dir())));
        counted = keep_books(&ledger, archive::count(&opened.records, &said));
        counted.broken.iter().for_each(|what| ledger.broken(what.clone()));
    }
    progress.say("the same search on a relay that leaks on purpose");
    let control = keep_books(&ledger, leak::control(&stage.folder.path().join("control"), &search, &texts));

    let mut verdict = ledger.verdict();
    for (file, offset, places) in found.files() {
        let file = file.strip_prefix(stage.folder.path()).unwrap_or(file).display();
        verdict.broken.push(format!("plain text in {file}: {places} places, the first at byte {offset}"));
    }
    let figures = Figures {
        sent: verdict.tally.sent,
        delivered: verdict.tally.delivered,
        lost: verdict.lost,
        doubled: verdict.tally.doubled,
        epochs,
        plaintext_hits: found.hits() as u64,
        wall_ms: u64::try_from(progress.elapsed().as_millis()).unwrap_or(u64::MAX),
        devices_linked: verdict.tally.linked,
        personal_accounts: plan.accounts(Home::Personal) as u64,
        accounts_disabled: verdict.tally.disabled,
        cut_off_ms: verdict.tally.cut_off_ms,
        removed_ms: verdict.tally.removed_ms,
        delivered_after_disable: verdict.tally.after_disable,
        partner_accounts: plan.accounts(Home::Partner) as u64,
        archived: counted.archived,
        archive_missing: counted.missing,
        personal_in_archive: counted.foreign,
        opened_by_k: opened.by_k,
        opened_by_k_minus_1: opened.by_fewer,
        export_verified: opened.verified,
        starvation_detected: verdict.tally.starvation_noticed,
    };
    let mut summary = Summary {
        figures,
        people: plan.people.len(),
        groups: ledger.groups().len(),
        crashes,
        badge: ledger.shown_badge(),
        searched: found.bytes(),
        control_hits: control.hits(),
        samples: samples(plan),
        verdict,
        kept: None,
    };
    if keep || !summary.is_well() {
        summary.kept = Some(stage.keep());
    }
    Ok(summary)
}

/// Plays and crashes until everything has come, or nothing more will.
async fn act(stage: &mut Stage, plan: &Plan, progress: &Progress) -> Vec<String> {
    let (cast, relay, escrow) = (&stage.cast, &mut stage.relay, stage.escrow.as_mut());
    let ledger = cast.ledger.clone();
    let mut crashes = Vec::new();
    let played = async {
        let (played, crashed) = tokio::join!(async { ledger.unless(play::play(cast, plan).await) }, async {
            ledger.unless(faults::crash(cast, plan, relay, escrow, progress).await)
        },);
        crashes = crashed.unwrap_or_default();
        if played.is_some() {
            ledger.settled().await;
            close::flush(cast).await;
            quiet(&ledger).await;
        }
    };
    tokio::select! {
        () = played => {}
        () = ledger.is_over() => {}
        () = stall(&ledger) => {
            ledger.broken(format!("nothing moved for {} s", STALL.as_secs()));
        }
        _ = signal::ctrl_c() => ledger.broken("interrupted".to_owned()),
    }
    crashes
}

/// Searches twice: while the relay runs, for what it deletes when it stops (the write-ahead log), and afterwards.
async fn search_relay(stage: &mut Stage, search: &Search<'_>, ledger: &Ledger) -> Findings {
    let mut found = keep_books(ledger, search.run(stage.relay.folder()));
    keep_books(ledger, stage.relay.stop().await);
    if let Some(partner) = &mut stage.partner {
        keep_books(ledger, partner.stop().await);
    }
    found.merge(keep_books(ledger, search.run(stage.relay.folder())));
    found
}

fn keep_books<T: Default, E: Display>(ledger: &Ledger, outcome: Result<T, E>) -> T {
    ledger.unless(outcome).unwrap_or_default()
}

async fn stall(ledger: &Ledger) {
    loop {
        let before = ledger.changes();
        sleep(STALL).await;
        if ledger.changes() == before {
            return;
        }
    }
}

async fn quiet(ledger: &Ledger) {
    loop {
        let before = ledger.changes();
        sleep(QUIET).await;
        if ledger.changes() == before {
            return;
        }
    }
}

/// Lines from all over the day.
fn samples(plan: &Plan) -> Vec<(String, String, String)> {
    let stride = plan.messages().count().div_ceil(SAMPLES).max(1);
    let sample =
        |message: &Arc<PlannedMessage>| (message.group.name.clone(), message.from.name.clone(), message.text.clone());
    plan.messages().step_by(stride).map(sample).collect()
}
