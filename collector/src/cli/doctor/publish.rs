//! Whether the archive can be published, where the settings say where to. Writes nothing.

use std::io;

use crate::publish::{Broker as _, Opened, PublishError, Published};

use super::{CheckResult, Round};
use crate::cli::publish::open_broker;
use crate::cli::settings::Settings;
use crate::cli::{Failure, output};

const NAME: &str = "publishing";

pub(super) async fn examine(settings: &Settings, round: &mut Round) -> io::Result<()> {
    let Some(target) = &settings.publish.publish_to else { return Ok(()) };
    let mut broker = match open_broker(settings, target) {
        Ok(broker) => broker,
        Err(Failure::Usage(error) | Failure::Failed(error)) => {
            return round.note(NAME, CheckResult::Failed, output::one_line(&error));
        }
    };
    let Opened { published, warnings, .. } = match broker.examine().await.map_err(PublishError::from) {
        Ok(opened) => opened,
        Err(error) => {
            let hint = error.hint().unwrap_or("check the address, the network and the server");
            return round.advise(NAME, CheckResult::Failed, error.to_string(), hint);
        }
    };
    match published {
        Published::Nothing => round.note(NAME, CheckResult::Ok, format!("{target} holds nothing yet"))?,
        Published::UpTo(position) => {
            round.note(NAME, CheckResult::Ok, format!("{target} holds messages up to {position}"))?;
        }
        Published::Unknown => round.advise(
            NAME,
            CheckResult::Failed,
            format!("the last message of {target} is gone"),
            "`collector publish --from CURSOR` says where to continue",
        )?,
    }
    warnings.into_iter().try_for_each(|warning| round.note(NAME, CheckResult::Warning, warning))
}
