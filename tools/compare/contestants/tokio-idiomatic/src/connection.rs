//! One connection: the handshake, then a loop over its frames.

use std::io;

use bytes::Bytes;
use contestant::frames::{self, Kind};
use contestant::session::{Ending, OPENING_LEN};
use contestant::{Mode, tally::Tally};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::Server;
use crate::codec::{Error, Frame, WireCodec};
use crate::hub::Subscription;

type Frames = Framed<TcpStream, WireCodec>;

pub(crate) async fn serve(mut stream: TcpStream, mode: Mode, server: &Server) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Err(error) = shake_hands(&mut stream, server).await {
        return say_farewell(&mut stream, error).await;
    }
    let mut frames = Framed::new(stream, WireCodec);
    match relay(&mut frames, mode, server).await {
        Err(error) => say_farewell(frames.get_mut(), error).await,
        Ok(()) => Ok(()),
    }
}

async fn shake_hands(stream: &mut TcpStream, server: &Server) -> Result<(), Error> {
    let mut opening = [0; OPENING_LEN];
    stream.read_exact(&mut opening).await?;
    let answer = server.acceptor.answer(&opening)?;
    stream.write_all(&answer).await?;
    Ok(())
}

/// Says why it is over, if there is someone to say it to.
async fn say_farewell(stream: &mut TcpStream, error: Error) -> io::Result<()> {
    match error {
        Error::Protocol(ending) => stream.write_all(ending.farewell()).await,
        Error::Io(error) => Err(error),
    }
}

async fn relay(frames: &mut Frames, mode: Mode, server: &Server) -> Result<(), Error> {
    match frames.next().await.transpose()? {
        None => return Ok(()),
        Some(Frame { kind: Kind::Ready, .. }) => {}
        Some(Frame { kind: Kind::Goodbye, .. }) => return Err(Ending::goodbye().into()),
        Some(_) => return Err(Ending::expected_ready().into()),
    }
    match mode {
        Mode::Echo => echo(frames).await,
        Mode::Fanout => fanout(frames, server).await,
        Mode::Sink => sink(frames).await,
    }
}

/// The next message; what is none is dealt with here.
async fn next_message(frames: &mut Frames) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = frames.next().await {
        let Frame { kind, bytes } = frame?;
        match kind {
            Kind::Message => return Ok(Some(bytes)),
            Kind::Ping => frames.send(frames::pong(&bytes).into()).await?,
            Kind::Goodbye => return Err(Ending::goodbye().into()),
            Kind::Ready => return Err(Ending::unexpected_ready().into()),
            Kind::Skipped => {}
        }
    }
    Ok(None)
}

async fn echo(frames: &mut Frames) -> Result<(), Error> {
    while let Some(message) = next_message(frames).await? {
        frames.send(message).await?;
    }
    Ok(())
}

async fn sink(frames: &mut Frames) -> Result<(), Error> {
    let mut tally = Tally::default();
    while let Some(message) = next_message(frames).await? {
        if tally.count() {
            frames.send(message).await?;
        }
    }
    Ok(())
}

async fn fanout(frames: &mut Frames, server: &Server) -> Result<(), Error> {
    let Subscription { id, mut queue, disconnected } = server.hub.join();
    let relay = async {
        loop {
            tokio::select! {
                Some(message) = queue.recv() => frames.send(message).await?,
                message = next_message(frames) => match message? {
                    Some(message) => server.hub.publish(id, &message),
                    None => return Ok(()),
                },
            }
        }
    };
    let ended = disconnected.run_until_cancelled(relay).await;
    server.hub.leave(id);
    ended.unwrap_or(Ok(()))
}
