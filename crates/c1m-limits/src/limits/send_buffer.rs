//! The send buffer of one socket: SO_SNDBUF, net.ipv4.tcp_wmem.

use c1m_record::{Confidence, LimitName, Scope};

use super::{About, Limit, receive_buffer};
use crate::{
    case::Case,
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, Planned},
    reading::{Readings, Usage},
};

pub(super) struct SendBuffer;

impl Limit for SendBuffer {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::SendBuffer,
            scope: Scope::Socket,
            unit: "bytes",
            setting: "SO_SNDBUF, net.ipv4.tcp_wmem, third value",
            source: "net.ipv4.tcp_wmem; no sum of all sockets is worth its price",
            symptom: "send waits or answers EAGAIN, which is how every fast sender is slowed down; an error only where segments can't be split",
            distinguished_by: "TCPWqueueTooBig, a counter of this limit alone; EAGAIN is never counted",
            kernel: "net/ipv4/tcp_output.c, tcp_fragment (6.18)",
            label: "send buffer",
            summary: ["send waits or answers EAGAIN", "SO_SNDBUF"],
            metric: None,
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(None, now.tcp_wmem.map(|limits| limits[2]))
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        receive_buffer::need(planned, planned.now.tcp_wmem, "net.ipv4.tcp_wmem")
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[Known::new(
                "net.ipv4.tcp_wmem",
                Numbers::Int(3, 1),
                Rule::Numbers(receive_buffer::assess),
            )]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let count = case.observed.counter("TCPWqueueTooBig");
        (count > 0).then(|| {
            Finding::new(
                LimitName::SendBuffer,
                Confidence::Certain,
                format!("{count} segments could not be split for sending again, because their socket's send queue was twice its buffer"),
            )
            .saw("TcpExt TCPWqueueTooBig", "segments in this network namespace", count)
        })
    }

    fn remedy(&self, _: &Case<'_>) -> String {
        "a larger SO_SNDBUF, or net.ipv4.tcp_wmem (bytes, third value): each connection can hold that much, and tcp_mem counts it".into()
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{evidence::Evidence, forecast::History, verdict::judge};

    #[test]
    fn a_send_queue_twice_its_buffer_has_a_counter_of_its_own() {
        let tcp_ext = [("TCPWqueueTooBig".into(), 1)].into();
        let too_big = Evidence { tcp_ext, ..Evidence::default() };
        let cause = &judge(&too_big, &History::default()).causes[0];
        assert_eq!((cause.limit, cause.confidence), (LimitName::SendBuffer, Confidence::Certain));
    }
}
