//! What `--help` says besides the options: what the words of a table and the fields of the JSON mean.

pub(super) const HOSTILE_TABLE: &str = "\
The table:
  trips/s, p50, p99, max   the round trips of the good peer, which sends one message at a time
  attackers     connected: connections that TCP granted; established: handshakes that came to their end; attempts: what was tried, in the
                attack's own unit (pings, records, bit flips). 0 where an attack does not count it";

pub(super) const IDLE_TABLE: &str = "\
The table:
  memory        resident memory of the server's process, by its own system: before the first of the peers came, when all had, and when they
                had done nothing for the time; the last less the first, by the peers. The kernel's memory for sockets is not in it
  server CPU    processor time of the server's cores while the peers did nothing
  pings         of both sides in that time: who hears nothing for five seconds sends one
  verified      at the end every peer sends a message, which has to come back

Exit code: 0 when no peer was lost and every message came back; 1 when not, or when the run failed; 2 for a wrong command line.";

pub(super) const STORM_TABLE: &str = "\
The table, a round at a time; times are from the cut:
  back          peers that came back, when the last was there, and when the last was gone
  handshakes    peers that came back a second, over all that time and in the busiest tenth of a second. Both sides' processors are in it:
                they share this machine
  failed        attempts that failed and were made again, by the reason that the peers were told
  relapses      peers that had come back and were cut off again
  server says   what it counted meanwhile: connections, handshakes, refusals
  bystander     round trips of one more peer, that has a message returned each two milliseconds, before the cut, and `in the storm` until
                all are back; each from when it was due. With --cut server it is cut off as well, and its round trips are those since it
                was back

Exit code: 0 when all came back in every round and the bystander lost nothing but its connection, and that with --cut server only; 1 when
not, or when the run failed; 2 for a wrong command line.";

pub(super) const EXIT_CODES: &str = "\
Exit code: 0 when everything arrived once, in order and undamaged; 1 when not, when a run was INVALID or failed; 2 for a wrong command
line.";

pub(super) const STEPS: &str = "\
The table, of one run a line:
  rate          messages a second that were due; messages/s and deliveries/s: what was sent and what arrived
  response      from when a message was due to its arrival; service p99: from when it was given to the client's engine
  sent late     how late the load generator itself was, at p99
  verdict       valid; INVALID where the generator was late or left messages unsent, as it is beyond what the server takes; FAILED where
                something was lost, or a peer ended: the lines above it are no worse for that

A knee is looked for by bisection of the ratio; then both rates that are left are run again, and what most runs say counts. A run that is
INVALID is not under the bound; where the generator's lag is why, that is said: the server may do more.
A server in this process is a new one for each run.
Exit code: 0 where there is an answer: a rate that is valid, a knee; 1 where there is none, or where something was duplicated, reordered
or damaged; 2 for a wrong command line.";

/// What the words of a report mean, for `--help`.
pub(super) const GLOSSARY: &str = "\
The loops:
  open          messages are due by a schedule that knows nothing of the server (--rate, --arrivals): what users do who do not know of each
                other. A server that stands still is asked for all that became due meanwhile, and each message's response time counts from
                when it was due. What echo, fanout, all-to-all and request do unless they are told otherwise, at 1000 messages a second,
                fanout and all-to-all at no more than 50,000 deliveries a second; mixed always; the others with --rate
  closed        a message is sent when another one has come to its end (--closed, --in-flight): how much a server does at most. Its
                latencies leave out who would have come meanwhile

The table:
  measured      what was sent and what arrived in the measured time alone; the rates are these counts a second
  latency       closed loop: from when a message was sent to its arrival
  response      open loop: from when a message was due to its arrival, of the messages that were due in the measured time, however late
  service       open loop: the same messages, from when each was given to the client's engine
  last of all   fan-out, all-to-all and topics: from when a message was sent to its arrival at the last of its subscribers
  sent late by  open loop: how late the load generator itself was. What a message waits because the engine takes none for its peer is the
                server's doing, and not in it
  INVALID       open loop: the generator was late, or messages that were due were never sent. Then the response times say more about the
                generator than about the server, and the exit code is 1. --lag-bound sets how late it may be at p99; mixed and slow-readers
                have no bound without it
  server CPU    processor time of the server's cores for each delivery; `1.00 processors busy` is one processor all the time, which a
                core that looks for work instead of sleeping (--spin-us) is even when there is none
  NOT ALONE     something else ran on the processors that the server needed: measure again on a quieter machine, or with other cores
  NOT SENT      mixed and slow-readers: messages were due that could not be sent, so the latencies are better than they should be
  target        with several: each of them by itself. Peers and counts of the whole run, latencies of the measured time
  OTHERS        other clients loaded the server meanwhile: each has exact counts of its own messages, and the server's processor time is
                shared; `merge` puts their reports together
  whole run     the counts from the first message to the last: warm-up, measured time, drain
  verified      of the whole run: lost (sent and did not arrive), duplicated, reordered, corrupt (wrong checksum, length, lane, sender or
                topic). Topics: everything in the order of each topic, and nothing of a topic that was not subscribed to

The table of mixed and slow-readers, which measure in rounds of an undisturbed and a disturbed phase, every other one:
  without bulk, with bulk          mixed: the round trip of the messages that were due in these phases: from when each was due at the
                client to the arrival of its echo there, by one clock. The way back leads through an outbox, a kernel and a client
                that have bulk
  bulk          mixed: what arrived of it in the phases that had it
  undisturbed, disturbed           slow-readers: the rates of the subscribers that read all the time. A disturbed phase begins when the
                others stop reading and ends after its time, or as soon as the last of them was cut off
  slow readers  those that stopped (fresh ones in each round), how many the server cut off meanwhile, and its counters that say why
  whole run, verified              mixed: both lanes; a bulk message counts as sent when it was asked for. slow-readers: the subscribers
                that read all the time, which must get everything; the others must get what they read in order, without a gap

The table of receipts:
  first ack, quorum, last ack      from when the server broadcast a message to the first acknowledgement, to the one that made the quorum,
                and to the last, by the server's own receipts, which know the time of the engine's turn: latency, above, is from the
                client to the server and to every subscriber
  receipts      whole run: broadcasts that every peer has acknowledged; those that somebody has not, or of which the server said nothing

The table of all-to-all:
  pairs         whole run: pairs of a sender and a receiver, and how many have exactly what was sent; what one sender sent and one receiver
                got, at the fewest and at the most
  incomplete    some of the pairs that have not, by the numbers of their peers

The table of request:
  response      from when a request was due to its answer; latency, in the closed loop: from when it was made. Those that timed out are
                not in it
  requests      whole run: answered, timed out, failed otherwise. Each request comes to one of these ends or is lost
  late answers  came after their deadline; the library throws them away

The JSON (schema corecast-loadgen/4):
  elapsed_s, sent, delivered, msgs_per_s (sent / elapsed_s), deliveries_per_s (delivered / elapsed_s), latency_ns and the other times
  and server_cpu*: the measured time alone.
  latency_ns: open loop: the response time; service_ns, send_lag_ns: see service and sent late by.
  histograms: all of what the percentiles are taken from, as base64 of HdrHistogram's compressed V2 encoding, in nanoseconds.
  validity: open loop: valid, lag_bound_ns, and the reasons if it is not.
  intervals: the measured time in pieces of a second, or of a tenth of a shorter run; what arrived late counts in the piece that it came in.
  total_sent, total_delivered, unsent, lost, duplicated, reordered, corrupt, disconnected: the whole run.
  command: the command line, word by word.
  targets: each of several; without server_cpus where a server's machine keeps no account.
  topics: topics: what was subscribed to.
  receipts: receipts: complete and incomplete of the whole run; first_ns, quorum_ns, last_ns of the measured time.
  all-to-all: pairs: the whole run. request: requests: the whole run; lost: neither answered nor timed out nor failed.
  mixed: without_bulk and with_bulk hold what elsewhere is at the top, for their phases; bulk: what was asked for and what arrived.
  slow-readers: undisturbed and disturbed likewise; rate_ratio: deliveries_per_s of disturbed / undisturbed; slow: stopped, cut_off.

Exit code: 0 when everything arrived once, in order and undamaged; 1 when not, when a run was INVALID or failed; 2 for a wrong command
line.";
