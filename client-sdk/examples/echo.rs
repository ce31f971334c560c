//! A bot that says back what it hears, in every group that it is in.
//!
//! This example is no model for a bot that must answer each message exactly once: it answers before it acknowledges, so
//! after a crash it may answer again.
//!
//! ```text
//! cargo run -p chancery-client --example echo -- STATE_DIR [TICKET]
//! ```

use chancery_client::{Body, Client, Config, Error, EventId, FileKey, HostEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: echo STATE_DIR [TICKET]")?;
    let key = FileKey::create_or_open(format!("{dir}/host.key"))?;
    let client = Client::open(Config::new(&dir), key).await?;
    if let Some(ticket) = args.next()
        && client.identity().is_none()
    {
        client.enroll(&ticket).await?;
    }
    let identity = client.identity().ok_or("not enrolled: pass a ticket")?;
    println!("I am {}; invite me", identity.address);
    echo(&client).await?;
    Ok(())
}

async fn echo(client: &Client) -> Result<(), Error> {
    let mut cursor = EventId(0);
    loop {
        let batch = client.next_events(100, cursor).await?;
        for event in &batch.events {
            if let HostEvent::Message { message, .. } = event
                && let Body::Text(text) = &message.body
                && !message.own
            {
                match client.send(message.group, text).await {
                    // Who was removed meanwhile has nobody to answer.
                    Ok(_) | Err(Error::NotAllowed(_) | Error::UnknownGroup) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        client.ack(batch.cursor).await?;
        cursor = batch.cursor;
    }
}
