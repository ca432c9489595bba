//! Connections: how many there are, how long they may be idle or stall, and how they end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::access::Peer;
use super::shared::{Phase, Shared};

/// The longest time for the head of a request, and between two requests of a connection.
const HEAD: Duration = Duration::from_secs(15);

/// The longest time in which a client takes no byte of a response.
const STALL: Duration = Duration::from_secs(30);

/// The most bytes of the head of a request.
const MAX_HEAD: usize = 64 << 10;

/// What is given to answers that were cut, to tell their clients.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// The connections without a request in progress, oldest first. Where all places are taken the oldest one closes.
#[derive(Debug, Default)]
struct Idle {
    waiting: Mutex<BTreeMap<u64, Arc<Notify>>>,
    next: AtomicU64,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection that was idle longest.
    fn close_oldest(&self) {
        if let Some((_, close)) = self.lock().pop_first() {
            close.notify_one();
        }
    }
}

/// A connection among the others.
#[derive(Debug)]
struct Place {
    idle: Arc<Idle>,
    /// Its number among the idle ones.
    number: AtomicU64,
    close: Arc<Notify>,
}

impl Place {
    fn enter(idle: &Arc<Idle>) -> Arc<Self> {
        let place = Self {
            idle: Arc::clone(idle),
            number: AtomicU64::new(0),
            close: Arc::default(),
        };
        place.rest();
        Arc::new(place)
    }

    fn rest(&self) {
        let number = self.idle.next.fetch_add(1, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        self.idle.lock().insert(number, Arc::clone(&self.close));
    }

    fn leave(&self) {
        self.idle
            .lock()
            .remove(&self.number.load(Ordering::Relaxed));
    }
}

/// A request in progress; its connection is idle again when this is dropped.
#[derive(Debug)]
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: &Arc<Place>) -> Self {
        place.leave();
        Self(Arc::clone(place))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The body of a response, whose connection is busy until it ends.
struct Watched {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail once the other end took nothing for [`STALL`].
struct Stalling<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
    limit: Duration,
}

impl<S> Stalling<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            stalled: None,
            limit,
        }
    }

    /// `poll`, or an error if it was pending too long.
    fn within<T>(
        &mut self,
        poll: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(poll, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.within(poll, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(poll, context)
    }
}

/// Closes the queue when the server's task ends, so that the engine's thread ends too.
struct CloseQueue(Arc<Shared>);

impl Drop for CloseQueue {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// Accepts at most `most` connections at a time until the program is asked to end; then finishes what was begun, for
/// at most `grace`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    most: u32,
    grace: Duration,
) {
    let _close = CloseQueue(Arc::clone(&shared));
    let places = Arc::new(Semaphore::new(most as usize));
    let idle = Arc::new(Idle::default());
    {
        let mut end = pin!(termination());
        loop {
            let accepted = tokio::select! {
                () = &mut end => break,
                accepted = accept(&listener, &places, &idle) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    let place = Place::enter(&idle);
                    let (router, shared) = (router.clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        shared.metrics.connections.inc();
                        connection(stream, Peer(peer), router, &shared, &place).await;
                        place.leave();
                        shared.metrics.connections.dec();
                        drop(permit);
                    });
                }
                // No file handle is left, or the client is gone again.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
    drop(listener);
    eprintln!("ending: answers in progress are finished");
    shared.phase.send_replace(Phase::Ending);
    shared.queue.close();
    let closed = places.acquire_many(most);
    let mut closed = pin!(closed);
    let in_time = tokio::select! {
        closed = timeout(grace, closed.as_mut()) => closed.is_ok(),
        () = termination() => false,
    };
    if !in_time {
        eprintln!("ending: answers that are left are cut");
        shared.phase.send_replace(Phase::Cutting);
        let _ = timeout(AFTER_CUT, closed).await;
    }
}

/// Waits for a place, then for a connection.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    idle: &Idle,
) -> io::Result<(TcpStream, std::net::IpAddr, OwnedSemaphorePermit)> {
    if places.available_permits() == 0 {
        idle.close_oldest();
    }
    let permit = Arc::clone(places).acquire_owned().await;
    let permit = permit.map_err(|_| io::ErrorKind::NotConnected)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), permit))
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    shared: &Shared,
    place: &Arc<Place>,
) {
    // Small events are sent at once.
    let _ = stream.set_nodelay(true);
    let answer = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        let busy = Busy::new(place);
        request.extensions_mut().insert(peer);
        let response = answer.call(request);
        async move {
            let response = response.await?;
            Ok::<_, Infallible>(response.map(|body| Watched { body, _busy: busy }))
        }
    });
    let stream = TokioIo::new(Stalling::new(stream, STALL));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let mut phase = shared.phase.subscribe();
    let mut is_ending = false;
    loop {
        tokio::select! {
            // The client may be gone or send no HTTP; there is nobody to tell.
            _ = connection.as_mut() => return,
            () = place.close.notified() => return,
            _ = phase.wait_for(|phase| *phase >= Phase::Ending), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until the program is asked to end.
#[cfg(unix)]
async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Waits until the program is asked to end.
#[cfg(not(unix))]
async fn termination() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn the_connection_that_is_idle_longest_closes() {
        let idle = Arc::new(Idle::default());
        let places = [0, 1, 2].map(|_| Place::enter(&idle));
        let busy = Busy::new(&places[0]);
        let waiting = |idle: &Idle| -> Vec<u64> { idle.lock().keys().copied().collect() };
        assert_eq!(waiting(&idle), [1, 2]);
        drop(busy);
        assert_eq!(waiting(&idle), [1, 2, 3]);
        idle.close_oldest();
        assert_eq!(waiting(&idle), [2, 3]);
        places[2].leave();
        places[1].leave();
        assert_eq!(waiting(&idle), [3]);
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let client = TcpStream::connect(address).await.expect("it listens");
            let (stream, _) = listener.accept().await.expect("a client");
            let mut server = Stalling::new(stream, Duration::from_millis(50));
            let bytes = vec![0; 1 << 16];
            let error = loop {
                let written = poll_fn(|context| Pin::new(&mut server).poll_write(context, &bytes));
                if let Err(error) = written.await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(client);
        });
    }
}
