//! How far the content of a lease has come, sent by its holder or fetched by its provider, drawn on
//! one line while somebody looks on.

use std::time::Duration;

use super::Context;
use super::client::Client;
use super::failure::Failure;
use crate::api::types::{Lease, Pull, PullImage, Upload};
use capex_core::reason;

const INTERVAL: Duration = Duration::from_millis(200);
/// Questions in a row that a provider may leave without an answer: it may be restarting.
const SILENCES_MAX: u32 = 5;
/// Columns of the bar itself: with its words it fits a narrow terminal.
const COLUMNS: u64 = 30;

/// Follows an upload to its end, on a terminal. It goes on without anybody looking.
///
/// # Errors
/// What the daemon refused, or the terminal.
pub(super) fn follow(
    client: &Client,
    lease: &str,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    if context.global.json || !context.io.out_is_terminal {
        return Ok(());
    }
    let mut is_drawn = false;
    loop {
        let known: Lease = client.get(&format!("/leases/{lease}"))?;
        let upload = known.upload.filter(|_| !known.is_over());
        let Some(upload) = upload else { break };
        write!(context.io.err, "\r{}", line(upload))?;
        context.io.err.flush()?;
        is_drawn = true;
        std::thread::sleep(INTERVAL);
    }
    if is_drawn {
        writeln!(context.io.err)?;
    }
    Ok(())
}

/// Has the provider of a certificate fetch an image, to the end: only then is the certificate worth
/// presenting. Nothing is used up if this is given up, and the same goes on from there.
///
/// # Errors
/// What the daemon or the provider refused, or the terminal.
pub(super) fn pull(
    client: &Client,
    cert: &str,
    image: &str,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let body = PullImage { image: image.to_owned() };
    let draws = !context.global.json && context.io.out_is_terminal;
    let (mut silences, mut is_drawn) = (0, false);
    loop {
        let known: Pull = match client.post(&format!("/certificates/{cert}/pull"), &body) {
            Err(failure) if failure.code == reason!("pull.no_answer").code() => {
                silences += 1;
                if silences >= SILENCES_MAX {
                    return Err(failure);
                }
                std::thread::sleep(INTERVAL);
                continue;
            }
            answer => answer?,
        };
        silences = 0;
        if draws && known.total_bytes > 0 {
            let (sent_bytes, total_bytes) = (known.received_bytes, known.total_bytes);
            write!(context.io.err, "\r{}", line(Upload { sent_bytes, total_bytes }))?;
            context.io.err.flush()?;
            is_drawn = true;
        }
        if known.complete {
            break;
        }
        std::thread::sleep(INTERVAL);
    }
    if is_drawn {
        writeln!(context.io.err)?;
    }
    Ok(())
}

/// As `[######------]  42 %  84.0 of 200.0 MiB`: of the same length whatever the numbers.
fn line(upload: Upload) -> String {
    let Upload { sent_bytes, total_bytes } = upload;
    let of = |most: u64| {
        let share = u128::from(sent_bytes) * u128::from(most) / u128::from(total_bytes.max(1));
        u64::try_from(share).unwrap_or(most).min(most)
    };
    let done = usize::try_from(of(COLUMNS)).unwrap_or(0);
    let left = usize::try_from(COLUMNS).unwrap_or(0).saturating_sub(done);
    let (full, empty) = ("#".repeat(done), "-".repeat(left));
    format!("[{full}{empty}] {:>3} %  {:>8} of {} MiB", of(100), mib(sent_bytes), mib(total_bytes))
}

/// With one decimal, rounded down.
pub(super) fn mib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_end_and_never_longer() {
        let total_bytes = 200 << 20;
        let table = [
            (0, "[------------------------------]   0 %       0.0 of 200.0 MiB"),
            (84 << 20, "[############------------------]  42 %      84.0 of 200.0 MiB"),
            (total_bytes - 1, "[#############################-]  99 %     199.9 of 200.0 MiB"),
            (total_bytes, "[##############################] 100 %     200.0 of 200.0 MiB"),
        ];
        for (sent_bytes, text) in table {
            assert_eq!(line(Upload { sent_bytes, total_bytes }), text);
        }
        let odd = [(5, 0), (u64::MAX, 1), (u64::MAX, u64::MAX)];
        for (sent_bytes, total_bytes) in odd {
            assert!(line(Upload { sent_bytes, total_bytes }).starts_with('['));
        }
    }
}
