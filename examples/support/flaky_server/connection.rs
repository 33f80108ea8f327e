//! A connection of the flaky server.

use super::{
    State,
    fault::{Answer, Ending},
    request::Request,
};
use smol::{
    Async, Timer,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::{io, net::TcpStream};

/// The largest request the server reads.
const MAX_REQUEST: usize = 1 << 20;

pub struct Connection {
    stream: Async<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    pub fn new(stream: Async<TcpStream>) -> Self {
        // Without it, the small writes of a stream would reach the client in lumps.
        _ = stream.get_ref().set_nodelay(true);
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Answers requests until the client or an answer ends the connection.
    pub async fn run(mut self, state: &State) -> io::Result<()> {
        while let Some(request) = self.request().await? {
            let Answer { parts, ending } = state.answer(&request).await;
            for (pause, part) in parts {
                Timer::after(pause).await;
                self.stream.write_all(&part).await?;
            }
            match ending {
                Ending::Keep if !request.from_page => {}
                Ending::Keep | Ending::Close => break,
                Ending::Stall => {
                    while self.received.len() <= MAX_REQUEST && self.receive().await? {}
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the next request, or `None` if the client closes the connection first.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = Request::parse(&self.received)? {
                self.received.drain(..length);
                return Ok(Some(request));
            }
            if self.received.len() > MAX_REQUEST || !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Reads some more bytes; false at the end of the connection.
    async fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        let read = self.stream.read(&mut buffer).await?;
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}
