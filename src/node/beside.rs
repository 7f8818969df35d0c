//! Work beside the loop.

use std::future::Future;

use tokio::task::JoinSet;

/// Tasks that end with their owner. What has ended is forgotten when the next one begins.
#[derive(Debug, Default)]
pub(super) struct Beside(JoinSet<()>);

impl Beside {
    /// Begins one more.
    pub(super) fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_ended_takes_no_room() {
        let mut beside = Beside::default();
        for _ in 0..100 {
            beside.spawn(async {});
            tokio::task::yield_now().await;
        }
        assert!(beside.0.len() < 10, "{}", beside.0.len());
    }
}
