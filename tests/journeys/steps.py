"""What a walk prints on its way: ``make walk`` shows it, and so does a failure."""


def step(text: str) -> None:
    print("  ·", text)  # noqa: T201  Its purpose is what it prints.
