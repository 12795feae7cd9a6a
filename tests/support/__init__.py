"""What tests share: a clock, a closed network, canaries, a real Kafka, a fault proxy, processes."""
