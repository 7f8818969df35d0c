//! How this node is found: the files `endpoints` and `cookie` of its data directory. Cleaners of
//! temporary files remove them, and a full disk takes none, while the node runs: so they are
//! looked after as long as it does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::CookieFile;
use crate::api::endpoints::EndpointsFile;
use crate::api::types::Endpoints;

/// How often the files are looked at: a person who sees that one is gone may try again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where this node can be found.
pub(super) struct Presence {
    pub(super) api_addr: String,
    pub(super) listening: Vec<String>,
    pub(super) started_at_ms: u64,
    found_at: watch::Sender<Option<Endpoints>>,
    /// Removed last, when nothing answers any more.
    _file: Arc<EndpointsFile>,
}

impl Presence {
    /// Begins to look after the files. To be told of the endpoints when the node is ready.
    pub(super) fn start(
        api_addr: String,
        started_at_ms: u64,
        file: EndpointsFile,
        cookie: Arc<CookieFile>,
    ) -> (Self, JoinHandle<()>) {
        let (found_at, endpoints) = watch::channel(None);
        let file = Arc::new(file);
        let keeper = tokio::spawn(keep(Arc::clone(&file), cookie, endpoints));
        let listening = Vec::new();
        (Self { api_addr, listening, started_at_ms, found_at, _file: file }, keeper)
    }

    /// Where the node is now.
    pub(super) fn tell(&self, endpoints: Endpoints) {
        self.found_at.send_replace(Some(endpoints));
    }
}

async fn keep(
    file: Arc<EndpointsFile>,
    cookie: Arc<CookieFile>,
    mut endpoints: watch::Receiver<Option<Endpoints>>,
) {
    let mut was_told = false;
    loop {
        let now = endpoints.borrow_and_update().clone();
        let (file, cookie) = (Arc::clone(&file), Arc::clone(&cookie));
        let look = move || restore(&file, &cookie, now.as_ref());
        match tokio::task::spawn_blocking(look).await {
            Ok(Err(error)) if !was_told => {
                tracing::error!(%error, "the files by which commands find this node are missing");
                was_told = true;
            }
            Ok(result) => was_told = result.is_err(),
            // The runtime is ending.
            Err(_) => return,
        }
        tokio::select! {
            changed = endpoints.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn restore(
    file: &EndpointsFile,
    cookie: &CookieFile,
    endpoints: Option<&Endpoints>,
) -> io::Result<()> {
    cookie.restore()?;
    match endpoints {
        Some(endpoints) if !file.holds(endpoints) => file.write(endpoints),
        _ => Ok(()),
    }
}
