import torch

from benchmarks.training_steps import Step, kept_bytes, training_step

SMALL = ("cyclemlp_nano", 64, 2)


def test_a_step_changes_the_weights_and_ours_keeps_least() -> None:
    run, ours = training_step(Step(*SMALL))
    before = ours().item()
    run()
    assert ours().item() != before
    authors = training_step(Step(*SMALL, authors=True))[1]
    checkpointed = training_step(Step(*SMALL, checkpointing=True))[1]
    assert 0 < kept_bytes(checkpointed) < kept_bytes(ours) < kept_bytes(authors)


def test_kept_bytes_by_hand() -> None:
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(2, 4)
    hidden = 2 * 4 * 4  # the exponential keeps its result alone

    def forward() -> torch.Tensor:
        return (x @ weight.t()).exp().sum()

    assert kept_bytes(forward) == hidden + x.numel() * 4
