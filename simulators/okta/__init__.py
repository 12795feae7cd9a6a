"""The simulated Okta org: its System Log, its directory, its credentials, its limits."""

from simulators.okta.auth import ApiToken, ServiceApp
from simulators.okta.server import OktaSimulator

__all__ = ["ApiToken", "OktaSimulator", "ServiceApp"]
