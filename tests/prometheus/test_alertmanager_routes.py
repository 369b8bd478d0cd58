"""Debian's amtool checks the routes; every alert they name exists, and waits long enough to be held back."""

import re
import subprocess

import pytest
import yaml

from monitoring import DEPLOY

pytestmark = [pytest.mark.prometheus, pytest.mark.promtool]

ROUTES = DEPLOY / "alertmanager" / "alertmanager.yml"


def test_the_routes_pass_amtool() -> None:
    done = subprocess.run(["amtool", "check-config", ROUTES], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_of_a_node_waits_longer_than_the_rule_that_may_hold_it_back() -> None:
    groups = {
        group["name"]: group for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    }
    (minutes,) = re.findall(r"^(\d+)m$", groups["kickwatch-fleet"]["interval"])
    (waited,) = re.findall(r"^(\d+)m$", yaml.safe_load(ROUTES.read_text())["route"]["group_wait"])
    assert int(waited) > int(minutes) + 1


def test_every_alert_that_is_routed_or_inhibited_exists() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    named = re.findall(r'alertname=~?"(\w+)(?:\(([\w|]+)\))?"', ROUTES.read_text())
    asked = {first + last for first, lasts in named for last in lasts.split("|")}
    assert len(asked) > 8
    assert asked <= alerts
