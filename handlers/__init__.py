"""What is done to accounts: observe, plan, guard, apply, observe again. Knows vendors; knows neither Kafka nor rules nor the audit store."""
