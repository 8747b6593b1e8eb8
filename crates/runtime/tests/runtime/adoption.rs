//! A node process that is killed again and again: its successors go on as if nothing had been.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use futures::FutureExt;
use kminik_runtime::{ContainerState, Runtime, RuntimeConfig};

use crate::harness::{Test, eventually};
use crate::pods::{Pods, remove_all, runtime_config};

pub const ALL: &[Test] = &[
    Test { name: "adoption::killed_node_process", run: || killed_node_process().boxed_local() },
    Test { name: "adoption::killed_while_starting", run: || killed_while_starting().boxed_local() },
];

const LINES: usize = 1_500_000;

fn config(directory: &Path, group: &Path) -> RuntimeConfig {
    RuntimeConfig { log_max_bytes: 1 << 30, ..runtime_config(directory, group) }
}

fn group(directory: &Path) -> PathBuf {
    Path::new("/kminik-test").join(directory.file_name().unwrap())
}

/// What the node process of this test does: `__worker DIRECTORY WHAT`.
pub fn worker(args: &[String]) -> i32 {
    let directory = PathBuf::from(&args[0]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let group = group(&directory);
        let pods = Pods::with(&directory, &group, config(&directory, &group)).await;
        match args[1].as_str() {
            "make" => make(&pods).await,
            "start" => start_many(&pods).await,
            _ => {}
        }
        std::fs::write(directory.join("ready"), std::process::id().to_string()).unwrap();
        std::future::pending::<()>().await;
    });
    0
}

async fn make(pods: &Pods) {
    pods.sandbox("a").await;
    let count = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit 5");
    pods.start("a", pods.config("counter", &count)).await;
    pods.start("a", pods.config("long", "echo started; trap 'echo stopped; exit 6' TERM; while :; do sleep 0.1; done"))
        .await;
    let mut filter = pods.config("filter", "cat");
    filter.stdin = true;
    pods.start("a", filter).await;
    pods.start("a", pods.config("quick", "sleep 1; exit 3")).await;
}

async fn start_many(pods: &Pods) {
    pods.sandbox("a").await;
    for number in 0..200 {
        pods.start("a", pods.config(&format!("c-{number}"), "sleep 1000")).await;
    }
}

fn spawn(directory: &Path, what: &str) -> Child {
    let _ = std::fs::remove_file(directory.join("ready"));
    Command::new("/proc/self/exe").arg("__worker").arg(directory).arg(what).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    // The keeper above is not its parent, this process is.
    child.wait().unwrap();
}

async fn killed_node_process() {
    let directory = tempfile::Builder::new().prefix("rtadopt").rand_bytes(6).tempdir_in("/var/tmp").unwrap().keep();
    let child = spawn(&directory, "make");
    eventually("the first node process is ready", || directory.join("ready").exists()).await;
    let log = || std::fs::read_to_string(directory.join("logs/counter.log")).unwrap_or_default();
    kill(child);
    for round in 0..8 {
        let child = spawn(&directory, "adopt");
        // At no particular moment: also before it is ready.
        tokio::time::sleep(Duration::from_millis(20 + 37 * round)).await;
        kill(child);
    }
    let written = log().lines().count();
    assert!(written > 0 && written < LINES, "it was killed while it logged: {written}");
    // One exits while nobody looks.
    tokio::time::sleep(Duration::from_millis(1200)).await;

    let group = group(&directory);
    let pods = Pods::with(&directory, &group, config(&directory, &group)).await;
    let counter = pods.exit("counter").await;
    assert_eq!((counter.exit_code, counter.reason.as_deref()), (Some(5), Some("Error")));
    assert_eq!(pods.exit("quick").await.exit_code, Some(3));
    let text = log();
    let numbers: Vec<usize> = text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers.len(), LINES);
    assert!(
        numbers.iter().enumerate().all(|(index, number)| index == *number),
        "a line is lost, doubled or out of order"
    );

    let long = pods.runtime.container_status("long").await.unwrap();
    assert_eq!(long.state, ContainerState::Running);
    assert_eq!(pods.exec("long", "echo still here").await, (0, "still here\n".to_owned()));
    pods.runtime.stop_container("long", Duration::from_secs(10)).await.unwrap();
    assert_eq!(pods.exit("long").await.exit_code, Some(6));
    assert_eq!(pods.log("long"), "started\nstopped\n");

    // Its stdin was kept open.
    let (mut input, stdin) = tokio::io::duplex(64);
    let (stdout, mut output) = tokio::io::duplex(64);
    let streams = kminik_runtime::Streams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize: None,
    };
    let runtime = pods.runtime.clone();
    let attached = tokio::spawn(async move { runtime.attach("filter", streams).await });
    tokio::io::AsyncWriteExt::write_all(&mut input, b"hello\n").await.unwrap();
    let mut answer = [0; 6];
    tokio::io::AsyncReadExt::read_exact(&mut output, &mut answer).await.unwrap();
    assert_eq!(&answer, b"hello\n");
    attached.abort();
    pods.finish().await;
    remove_all(&directory, &group);
}

/// Whatever moment of a start it is: the next one knows what runs, and leaves nothing that no one knows of.
async fn killed_while_starting() {
    let directory = tempfile::Builder::new().prefix("rtstart").rand_bytes(6).tempdir_in("/var/tmp").unwrap().keep();
    let group = group(&directory);
    for round in 0..6 {
        let child = spawn(&directory, "start");
        tokio::time::sleep(Duration::from_millis(150 + 83 * round)).await;
        kill(child);
        let pods = Pods::with(&directory, &group, config(&directory, &group)).await;
        for status in pods.runtime.list_containers().await.unwrap() {
            match status.state {
                ContainerState::Running => assert!(Path::new(&format!("/proc/{}", status.pid.unwrap())).exists()),
                ContainerState::Created | ContainerState::Exited => assert!(status.pid.is_none()),
                ContainerState::Unknown => panic!("{status:?}"),
            }
        }
        pods.finish().await;
    }
    remove_all(&directory, &group);
}
