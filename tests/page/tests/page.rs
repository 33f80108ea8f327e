//! The page of `examples/web` in headless Chromium. `CHROMEDRIVER` names its driver. Screenshots go
//! to `target/page`.

use fantoccini::{Client, ClientBuilder, key::Key, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{sleep, timeout};

const REPLY: &str = "Patience is a virtue, as long as it has a timeout.";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Serves the page, and returns where.
fn serve() -> (Process, String) {
    let mut server = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--example", "web"])
        .args(["--", "--port", "0"])
        .current_dir(root())
        .env("CARGO_TARGET_DIR", root().join("target"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    lines.read_line(&mut url).unwrap();
    let server = Process(server);
    assert!(url.starts_with("http://"), "{url:?}");
    (server, url.trim().to_owned())
}

/// The page in a browser of its own.
struct Browser {
    page: Client,
    _driver: Process,
    _server: Process,
}

impl Browser {
    async fn open(args: &[&str], emulation: Value) -> Self {
        let (server, url) = serve();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let driver = env::var_os("CHROMEDRIVER").unwrap_or("chromedriver".into());
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let driver = Process(driver);

        let settings = fs::read(root().join(".ci/webdriver.json")).unwrap();
        let mut settings: Value = serde_json::from_slice(&settings).unwrap();
        let options = &mut settings["goog:chromeOptions"];
        let all = options["args"].as_array_mut().unwrap();
        all.extend(args.iter().map(|&arg| arg.into()));
        if !emulation.is_null() {
            options["mobileEmulation"] = emulation;
        }
        let capabilities: Capabilities = serde_json::from_value(settings).unwrap();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let connect = async {
            loop {
                match builder.connect(&format!("http://127.0.0.1:{port}")).await {
                    Ok(client) => break client,
                    // The driver is not ready yet.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let page = timeout(PATIENCE, connect).await.expect("a browser");
        page.goto(&url).await.unwrap();
        let browser = Self {
            page,
            _driver: driver,
            _server: server,
        };
        browser.idle().await;
        browser
    }

    async fn js(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until a selector finds that many elements.
    async fn until(&self, count: usize, selector: &str) {
        let come_true = async {
            while self.count(selector).await != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, come_true).await.is_err() {
            panic!("not within {PATIENCE:?}: {count} {selector}");
        }
    }

    /// Waits until the page can be asked.
    async fn idle(&self) {
        self.until(1, "#send:enabled").await;
    }

    /// Types into the element that has the focus, which is the prompt at first.
    async fn type_in(&self, keys: &str) {
        let focused = self.page.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    async fn send(&self, message: &str) {
        self.type_in(message).await;
        self.type_in(&char::from(Key::Enter).to_string()).await;
    }

    async fn stop(&self) {
        self.type_in(&char::from(Key::Escape).to_string()).await;
        self.idle().await;
    }

    /// The texts of all elements that a selector finds.
    async fn texts(&self, selector: &str) -> Vec<String> {
        let script = format!(
            "return Array.from(document.querySelectorAll('{selector}'), it => it.textContent)"
        );
        serde_json::from_value(self.js(&script).await).unwrap()
    }

    async fn count(&self, selector: &str) -> usize {
        self.texts(selector).await.len()
    }

    /// The number of requests that the server has received.
    async fn requests(&self) -> usize {
        let script = "return fetch('/requests').then(answer => answer.json())";
        serde_json::from_value(self.js(script).await).unwrap()
    }

    async fn screenshot(self, name: &str) {
        let png = self.page.screenshot().await.unwrap();
        let directory = root().join("target/page");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), png).unwrap();
        self.page.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_conversation_is_drawn_as_the_server_saw_it() {
    let browser = Browser::open(&["--window-size=900,1080"], Value::Null).await;

    for message in ["What is patience?", "Are you sure?"] {
        browser.send(message).await;
        browser.idle().await;
    }
    // The next answer in one piece: by keyboard too, and back.
    browser
        .js("document.querySelector('#streaming').focus()")
        .await;
    browser.type_in(" ").await;
    browser
        .js("document.querySelector('#prompt').focus()")
        .await;
    browser.send("Once more, and all at once.").await;
    browser.idle().await;

    assert_eq!(browser.texts("#log .assistant").await, [REPLY; 3]);
    let mut outcomes = browser.texts("#timeline p").await;
    for outcome in &mut outcomes {
        // The time to the first content varies.
        let parts = outcome.split(" → ").filter(|it| !it.starts_with('►'));
        *outcome = parts.collect::<Vec<_>>().join(" → ");
    }
    assert_eq!(
        outcomes,
        [
            "1: 503 → 429 → ok",
            "2: dropped → timeout → 529 → ok",
            "3: timeout → dropped → timeout → ok"
        ]
    );
    for (class, count) in [
        ("refused", 2),
        ("throttled", 1),
        ("dropped", 2),
        ("silent", 3),
        ("answered", 3),
        ("content", 2),
        ("wait", 8),
        ("asked", 1),
    ] {
        let drawn = browser.count(&format!("#timeline .{class}")).await;
        assert_eq!(drawn, count, "{class}");
    }
    assert!(browser.count("#timeline .chunk").await >= 2 * REPLY.split(' ').count());
    let attempts = browser.count("#timeline .attempt").await;
    assert_eq!(attempts, browser.requests().await);
    assert_eq!(
        browser.texts("#summary").await,
        [format!("3 messages, {attempts} attempts, 8 retries")]
    );
    browser.screenshot("conversation.png").await;
}

#[tokio::test]
async fn a_call_that_is_stopped_on_a_dark_phone_sends_nothing_more() {
    let phone = json!({"deviceMetrics": {"width": 360, "height": 780, "pixelRatio": 2}});
    let browser = Browser::open(&["--blink-settings=preferredColorScheme=0"], phone).await;

    // In the delay that the server asked for.
    browser.send("What is patience?").await;
    browser.until(1, "#timeline .asked").await;
    browser.stop().await;
    assert_eq!(browser.count("#timeline .attempt").await, 2);
    assert_eq!(browser.requests().await, 2);

    // In an attempt that would not have been answered.
    browser.send("Are you sure?").await;
    browser.until(4, "#timeline .attempt").await;
    sleep(Duration::from_millis(300)).await;
    browser.stop().await;
    assert_eq!(
        browser.texts("#timeline p").await,
        ["1: 503 → 429 → stopped", "2: dropped → stopped"]
    );
    assert_eq!(browser.texts("#log .why").await, ["stopped"; 2]);

    // Longer than any delay.
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(browser.count("#timeline .attempt").await, 4);
    assert_eq!(browser.requests().await, 4);

    let fits = "return document.documentElement.scrollWidth <= 360";
    assert_eq!(browser.js(fits).await, Value::Bool(true));
    let ground = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.js(ground).await, "rgb(22, 24, 29)");
    browser.screenshot("phone.png").await;
}
