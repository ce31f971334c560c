//! `device`: linking, listing, naming and revoking the devices of the own account.
//!
//! This module does not decide; the SDK asks the registrar.

use std::time::Duration;

use chancery_client::{Device, DeviceId, Error, GroupStatus};

use crate::{args::DeviceVerb, exit::Failure, session::Session, show::Output};

/// How long the KeyPackages of a device that was just linked may be behind it.
const PACKAGES_PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked for them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &DeviceVerb) -> Result<(), Failure> {
    let client = &session.client;
    match verb {
        DeviceVerb::Link => link(session, output).await,
        DeviceVerb::Add => {
            let groups = session.within("the groups are as they were", client.add_own_devices()).await?;
            output.added(groups)
        }
        DeviceVerb::List => output.devices(&client.devices().await?),
        DeviceVerb::Rename { device, label } => {
            let device = find(&client.devices().await?, device)?;
            output.devices(&client.rename_device(device, label).await?)
        }
        DeviceVerb::Acknowledge { device } => {
            let device = find(&client.devices().await?, device)?;
            client.acknowledge_device(device).await?;
            output.devices(&client.devices().await?)
        }
        DeviceVerb::Revoke { device } => {
            let device = find(&client.devices().await?, device)?;
            output.devices(&client.revoke_device(device).await?)
        }
    }
}

async fn link(session: &Session, output: &Output) -> Result<(), Failure> {
    let client = &session.client;
    let code = client.link_code().await?;
    output.link_code(&code)?;
    if session.identity.contact.is_some() {
        // Nobody knows the devices of a personal account but its own: its packages show that another one is there.
        return output.then_add();
    }
    let device = client.linked(&code).await?;
    let adding = async {
        // A device publishes its KeyPackages when it is first online. Each look takes one of every device of the account,
        // so one group is tried, and not often.
        let groups = client.groups().await?;
        if let Some(first) = groups.iter().find(|group| group.status == GroupStatus::Active) {
            loop {
                match client.invite(first.group, session.identity.account).await {
                    // The organisation's directory may not show it yet.
                    Ok(()) | Err(Error::NotAllowed(_)) => {}
                    Err(error) => return Err(error),
                }
                if client.members(first.group).await?.iter().any(|member| member.device == device.device) {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        client.add_own_devices().await
    };
    let groups = tokio::time::timeout(PACKAGES_PATIENCE, session.within("the device is linked; add it later", adding));
    let groups = groups.await.map_err(|_| {
        Failure::offline("the device is linked, and was not online yet: once it is, run `chancery device link` again")
    })??;
    output.linked(&device, groups)
}

fn find(devices: &[Device], wanted: &str) -> Result<DeviceId, Failure> {
    let wanted = wanted.to_ascii_lowercase();
    let fits = |device: &&Device| wanted.len() >= 8 && device.device.to_string().starts_with(&wanted);
    let found: Vec<&Device> = devices.iter().filter(fits).collect();
    match found.as_slice() {
        [device] => Ok(device.device),
        [] => {
            Err(Failure::usage("no such device: `chancery device list` shows their ids, of which 8 digits are enough"))
        }
        _ => Err(Failure::usage("several devices begin like this: name more digits")),
    }
}
