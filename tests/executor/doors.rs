//! The door of a lease process, which may be of another release than the daemon that knocks.

use capex::executor::access::words::hear;
use capex::executor::{State, samples};
use capex_core::lease::access::Answer;
use tokio::io::AsyncWriteExt;

use crate::{Host, LONG_MS, spec};

#[tokio::test]
async fn who_knocks_in_words_of_another_release_is_told_so() {
    let host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    host.running(&lease).await;
    for words in [0, 2, 255] {
        let mut door = host.manager.knock(&lease).await.unwrap();
        // Whatever follows.
        door.write_all(&[words, 0, 0, 0, 1, 9]).await.unwrap();
        let answer: Answer = hear(&mut door).await.unwrap();
        assert_eq!(answer, Answer::Refused { code: "access.other_release".to_owned() });
    }
    assert!(matches!(host.manager.state(&lease).unwrap(), State::Running { .. }));
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
}
