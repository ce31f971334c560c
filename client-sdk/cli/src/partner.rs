//! `partner`: other organisations that this device has pinned.
//!
//! This module does not fetch their files: a browser or `curl` does, over HTTPS, and checks whose domain it is.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::{args::PartnerVerb, exit::Failure, session::Session, show::Output};

/// More than such a file may be long, so that one that is longer is refused for that.
const READ_MAX: u64 = 64 * 1024;

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &PartnerVerb) -> Result<(), Failure> {
    let client = &session.client;
    match verb {
        PartnerVerb::Add { file } => output.pinned(&client.add_partner(&read(file)?).await?),
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

/// A file, or standard input.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(READ_MAX).read_to_end(&mut bytes)?;
    } else {
        let opened = File::open(file);
        let opened = opened.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", file.display())))?;
        opened.take(READ_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
