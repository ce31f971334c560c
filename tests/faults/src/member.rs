//! A person's client in a process of its own, on the public SDK: it sends texts until told to be quiet, and says each step
//! before it takes it.
//!
//! This module keeps no book of its own: an event is acknowledged once it has been said, so a kill in between only makes it
//! be said again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chancery_client::{Body, Class, Client, Config, Event, EventId, FileKey, GroupId, HostEvent, Message, Seq};
use clap::Args;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    Outcome,
    deployment::seeded,
    lines::{Answer, Order, Says, orders, say},
};

const RETRY_AFTER: Duration = Duration::from_millis(100);
const PAGE: usize = 1_000;

#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of this person.
    home: PathBuf,
    /// Seed of the round.
    #[arg(long)]
    seed: u64,
    /// The person's name.
    #[arg(long)]
    name: String,
    /// How often the process was started before.
    #[arg(long)]
    life: u32,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome<()> {
    let mut config = Config::new(arguments.home.join("state"));
    // The relay is killed all the time: nobody shall wait for it longer than needed.
    config.probe_after = Duration::from_millis(500);
    config.backoff_max = Duration::from_millis(500);
    let key = FileKey::create_or_open(arguments.home.join("host.key"))?;
    let client = Client::open(config, key).await?;
    let mut orders = orders();
    tokio::spawn(tell(client.clone()));
    say(&Says::Ready { account: client.identity().map(|identity| identity.account) });
    let groups = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(talk(client.clone(), arguments, Arc::clone(&groups)));
    while let Some(order) = orders.recv().await {
        let answer = match order {
            Order::Talk { groups: some } => {
                *groups.lock().await = some;
                continue;
            }
            Order::Quiet => {
                // What is being sent is sent before anything else is said.
                groups.lock().await.clear();
                Answer::Done
            }
            Order::Stop | Order::Finish => {
                client.shutdown().await?;
                say(&Says::Did(Answer::Done));
                return Ok(());
            }
            order => carry_out(&client, order).await?,
        };
        say(&Says::Did(answer));
    }
    Ok(())
}

async fn carry_out(client: &Client, order: Order) -> Outcome<Answer> {
    loop {
        match once(client, &order).await {
            Err(error) if error.is_retryable() => sleep(RETRY_AFTER).await,
            outcome => return Ok(outcome?),
        }
    }
}

async fn once(client: &Client, order: &Order) -> Result<Answer, chancery_client::Error> {
    Ok(match order {
        Order::Enrol { ticket } => {
            let account = client.enroll(ticket).await?.account;
            // Others can invite this device once its KeyPackages are there.
            client.flush().await?;
            Answer::Account(account)
        }
        Order::Found { name } => Answer::Group(client.create_group(Class::Work, name).await?),
        Order::Invite { group, account } => {
            client.invite(*group, *account).await?;
            Answer::Done
        }
        Order::Flush => {
            client.flush().await?;
            Answer::Done
        }
        Order::History { group } => Answer::History(history(client, *group).await?),
        _ => Answer::Done,
    })
}

async fn history(
    client: &Client,
    group: GroupId,
) -> Result<Vec<(Seq, chancery_client::MessageId, String)>, chancery_client::Error> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = client.history(group, before, PAGE).await?;
        let Some(first) = page.first() else { break };
        before = Some(first.seq);
        pages.push(page);
    }
    Ok(pages.into_iter().rev().flatten().filter_map(text).collect())
}

fn text(message: Message) -> Option<(Seq, chancery_client::MessageId, String)> {
    match message.body {
        Body::Text(text) => Some((message.seq, message.id, text)),
        _ => None,
    }
}

/// Sends as long as there are groups to send to; they are locked while a text is on its way into the outbox.
async fn talk(client: Client, arguments: Arguments, groups: Arc<Mutex<Vec<GroupId>>>) {
    let mut random = seeded(b"talk", arguments.seed.wrapping_add(u64::from(arguments.life) << 32));
    let mut number = 0_u64;
    loop {
        sleep(Duration::from_millis(random.number() % 20)).await;
        let groups = groups.lock().await;
        let Some(at) = random.number().checked_rem(groups.len() as u64) else { continue };
        let Some(group) = groups.get(usize::try_from(at).unwrap_or(0)).copied() else { continue };
        number += 1;
        let text = format!("{} {}.{number} 你好 🦊", arguments.name, arguments.life);
        say(&Says::Saying { group, text: text.clone() });
        match client.send(group, &text).await {
            Ok(id) => say(&Says::Said { text, id }),
            Err(error) if error.is_retryable() => sleep(RETRY_AFTER).await,
            Err(error) => return say(&Says::Trouble(format!("{} cannot send: {error}", arguments.name))),
        }
    }
}

/// Says what happens, and lets the client forget it.
async fn tell(client: Client) {
    let mut cursor = EventId(0);
    loop {
        let batch = match client.next_events(PAGE, cursor).await {
            Ok(batch) => batch,
            Err(error) if error.is_retryable() => {
                sleep(RETRY_AFTER).await;
                continue;
            }
            Err(_) => return,
        };
        batch.events.iter().filter_map(says).for_each(|event| say(&event));
        if client.ack(batch.cursor).await.is_ok() {
            cursor = batch.cursor;
        }
    }
}

fn says(event: &HostEvent) -> Option<Says> {
    let number = event.id().0;
    match event {
        HostEvent::Message { message: Message { group, seq, body: Body::Text(_), .. }, .. } => {
            Some(Says::Told { event: number, group: *group, seq: *seq })
        }
        HostEvent::Other { event, .. } => match event {
            Event::Joined { group, .. } => Some(Says::Joined { group: *group }),
            Event::MemberAdded { .. } => None,
            other => Some(Says::Trouble(format!("{other:?}"))),
        },
        _ => None,
    }
}
