//! `partner`: other organisations that this device has pinned.
//!
//! This module does not decide whom an organisation's web server can fool; the library checks whose domain it is.

use std::{
    fs::File,
    io::{self, Read as _},
};

use crate::{args::PartnerVerb, exit::Failure, session::Session, show::Output};

/// More than such a file may be long, so that one that is longer is refused for that.
const READ_MAX: u64 = 64 * 1024;

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &PartnerVerb) -> Result<(), Failure> {
    let client = &session.client;
    match verb {
        PartnerVerb::Add { source } => output.pinned(&client.add_partner(&read(source).await?).await?),
        PartnerVerb::List => {
            session.glance().await;
            client.partners().await?.iter().try_for_each(|partner| output.partner(partner))
        }
        PartnerVerb::Remove { domain } => {
            let partners = client.partners().await?;
            let partner = partners.iter().find(|partner| partner.organisation.domain.as_str() == domain);
            let partner = partner.ok_or_else(|| {
                Failure::refused("no organisation is pinned with this domain: `partner list` shows all")
            })?;
            client.remove_partner(partner.organisation.root).await?;
            output.unpinned(&partner.organisation)
        }
    }
}

/// What a web server, a file, or standard input says.
pub(crate) async fn read(source: &str) -> Result<Vec<u8>, Failure> {
    if let Some(fetched) = chancery_client::fetch_organisation(source).await {
        return Ok(fetched?);
    }
    let mut bytes = Vec::new();
    if source == "-" {
        io::stdin().lock().take(READ_MAX).read_to_end(&mut bytes)?;
    } else {
        let opened = File::open(source).map_err(|error| {
            Failure::failed(format!("{source} cannot be read: {error}; a domain is named as https://DOMAIN"))
        })?;
        opened.take(READ_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
