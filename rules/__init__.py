"""What an event means (detections in Sigma, lifecycle) and what a person should hold (access policy). Pure: nothing here calls anybody."""
