//! How far the content of a lease has come, drawn on one line while somebody looks on.

use std::time::Duration;

use super::Context;
use super::client::Client;
use super::failure::Failure;
use crate::api::types::{Lease, Upload};

const INTERVAL: Duration = Duration::from_millis(200);
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
