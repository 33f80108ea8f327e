//! The behaviour of the page.

use crate::{
    fetch::Fetch,
    picture,
    timeline::{Call, Recorder, State},
    wire,
};
use crabllm_retry::{
    FuturesTimer, Instant, Operations, Retrying, Timer, crabllm_core_0_0_19::Message, hints,
};
use futures::future::{AbortHandle, AbortRegistration, Abortable, Either, select};
use std::{cell::RefCell, pin::pin, rc::Rc, time::Duration};
use wasm_bindgen::{JsCast, prelude::Closure};
use wasm_bindgen_futures::spawn_local;
use web_sys::{
    Document, Element, Event, EventTarget, HtmlButtonElement, HtmlInputElement, KeyboardEvent,
};

/// The time between two drawings of the timeline during a call.
const FRAME: Duration = Duration::from_millis(40);

/// The limit for an attempt, and for the silence of a stream: short, so that one need not wait for
/// long to see it at work.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The page, and what has been said in it.
struct Page {
    /// Distinguishes this conversation from others at the server.
    conversation: u64,
    provider: Retrying<Fetch>,
    messages: RefCell<Vec<Message>>,
    calls: RefCell<Vec<Call>>,

    /// Stops the call under way.
    stopper: RefCell<Option<AbortHandle>>,
}

/// Brings the page to life.
pub fn start() {
    let provider = Retrying::new(Fetch {
        endpoint: "/v1/chat/completions",
    });
    let provider = provider
        .max_retries(3)
        .timeout(TIMEOUT)
        .stream_idle(TIMEOUT)
        .also_retry(Operations::STREAMS)
        .retry_if(hints::is_transient)
        .observe(Recorder::observe);
    let page = Rc::new(Page {
        conversation: js_sys::Date::now() as u64,
        provider,
        messages: RefCell::default(),
        calls: RefCell::default(),
        stopper: RefCell::default(),
    });

    let asking = page.clone();
    listen(&element::<Element>("chat"), "submit", move |event| {
        event.prevent_default();
        asking.clone().submit();
    });
    let stopping = page.clone();
    listen(&element::<Element>("stop"), "click", move |_| {
        stopping.stop()
    });
    let stopping = page.clone();
    listen(&document(), "keydown", move |event| {
        let key = event.dyn_ref::<KeyboardEvent>().map(KeyboardEvent::key);
        if key.as_deref() == Some("Escape") {
            stopping.stop();
        }
    });
    page.set_stopper(None);
}

impl Page {
    /// Asks the question in the prompt, unless a call is under way.
    fn submit(self: Rc<Self>) {
        let field: HtmlInputElement = element("prompt");
        let prompt = field.value().trim().to_owned();
        if prompt.is_empty() || self.stopper.borrow().is_some() {
            return;
        }
        field.set_value("");
        let (stopper, stopped) = AbortHandle::new_pair();
        self.set_stopper(Some(stopper));
        spawn_local(async move {
            self.ask(prompt, stopped).await;
            self.set_stopper(None);
        });
    }

    fn stop(&self) {
        if let Some(stopper) = &*self.stopper.borrow() {
            stopper.abort();
        }
    }

    fn set_stopper(&self, stopper: Option<AbortHandle>) {
        element::<HtmlButtonElement>("send").set_disabled(stopper.is_some());
        element::<HtmlButtonElement>("stop").set_disabled(stopper.is_none());
        *self.stopper.borrow_mut() = stopper;
    }

    /// Asks a question, and shows the answer and the timeline as they come.
    async fn ask(&self, prompt: String, stopped: AbortRegistration) {
        say("user", &prompt);
        let bubble = say("assistant", "");
        self.messages.borrow_mut().push(Message::user(prompt));
        let recorder = Recorder::new(Instant::now());
        let number = self.calls.borrow().len() + 1;
        let update = |state| self.update(number, recorder.recorded(number.to_string(), state));
        let user = format!("{number} of {}", self.conversation);
        let mut request = wire::question("flaky", "", Some(user));
        request.messages.clone_from(&self.messages.borrow());
        let show = |reply: &_| bubble.set_text_content(Some(reply));
        let streams = element::<HtmlInputElement>("streaming").checked();
        let call = recorder.call(&self.provider, &request, streams, show);
        // Stopping drops the call, and with it its request.
        let call = Abortable::new(call, stopped);
        let watch = async {
            loop {
                update(State::Running);
                FuturesTimer.sleep(FRAME).await;
            }
        };
        let result = match select(pin!(call), pin!(watch)).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => match never {},
        };
        let (state, why) = match result {
            Ok(Ok(reply)) => {
                self.messages.borrow_mut().push(Message::assistant(reply));
                (State::Succeeded, None)
            }
            Ok(Err(error)) => (State::Failed, Some(error.to_string())),
            Err(_) => (State::Stopped, Some("stopped".into())),
        };
        update(state);
        if let Some(why) = why {
            // A question without an answer is not part of the conversation.
            self.messages.borrow_mut().pop();
            append(&bubble, "em", "why").set_text_content(Some(&why));
        }
    }

    /// Adds a call or brings the last one up to date, and draws all of them.
    fn update(&self, number: usize, call: Call) {
        let mut calls = self.calls.borrow_mut();
        calls.truncate(number - 1);
        calls.push(call);
        element::<Element>("timeline").set_inner_html(&picture::draw(&calls));
        let summary = picture::sum_up(&calls);
        element::<Element>("summary").set_text_content(Some(&summary));
    }
}

/// Adds a message to the log.
fn say(role: &str, text: &str) -> Element {
    let log = element("log");
    let message = append(&log, "p", role);
    message.set_text_content(Some(text));
    log.set_scroll_top(log.scroll_height());
    message
}

fn document() -> Document {
    let window = web_sys::window().expect("a page has a window");
    window.document().expect("a window has a document")
}

/// An element of `index.html`.
fn element<T: JsCast>(id: &str) -> T {
    document()
        .get_element_by_id(id)
        .and_then(|element| element.dyn_into().ok())
        .unwrap_or_else(|| panic!("the page has its #{id}"))
}

/// A new element at the end of another one.
fn append(parent: &Element, tag: &str, class: &str) -> Element {
    let child = document().create_element(tag).expect("a valid name");
    child.set_class_name(class);
    _ = parent.append_child(&child);
    child
}

/// Calls a function at every event of a kind, as long as the page lives.
fn listen(target: &EventTarget, kind: &str, f: impl FnMut(Event) + 'static) {
    let closure = Closure::<dyn FnMut(Event)>::new(f);
    let function = closure.as_ref().unchecked_ref();
    _ = target.add_event_listener_with_callback(kind, function);
    closure.forget();
}
