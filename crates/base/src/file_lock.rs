//! Locks on files, which exclude processes and tasks alike.

use std::fs::{File, TryLockError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a lock that another has is tried: to wait for it in the kernel takes a thread, and cannot be given up.
const PAUSE: Duration = Duration::from_millis(20);

/// Locks the file, trying for at most `patience`; other tasks of the thread go on meanwhile. Held until the file is closed.
///
/// # Errors
/// `WouldBlock` if another keeps holding it.
pub async fn acquire(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if since.elapsed() < patience => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_lets_the_holder_go_on() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(path.path()).unwrap();
        let (held, waiting) = (open(), open());
        acquire(&held, Duration::ZERO).await.unwrap();
        assert!(matches!(acquire(&waiting, Duration::from_millis(50)).await, Err(TryLockError::WouldBlock)));
        // Both on one thread.
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(held);
        };
        let (got, ()) = tokio::join!(acquire(&waiting, Duration::from_secs(30)), release);
        got.unwrap();
    }
}
