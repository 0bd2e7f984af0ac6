"""Loaders and datasets within the frameworks that people train with, as docs/how-to/frameworks.md has it."""

from functools import cache

import pytest
import torch
from batch_copies import copied, same
from random_coefficients import quantized_pack
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from edgeprune_runtime import PackDataset, PackLoader

# What the frameworks warn of is theirs.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pack of 53 images in chunks of 7."""
    return quantized_pack(tmp_path_factory.mktemp("pack") / "q.h5")


def loader_of(path, **options):
    options = {"normalize": True, "drop_last": True, "backend": "torch", "device": "cpu", **options}
    return PackLoader(path, 8, True, 1, **options)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


@cache
def lightning_module():
    """The class of a module that notes its batches."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.seen = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), []

        def training_step(self, batch, number):
            images, labels = batch
            self.seen.append((images.numpy().copy(), labels.numpy()))
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    return Module


def lightning_trainer(folder, **options):
    import lightning

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **options)


@pytest.mark.parametrize("reuse_buffers", [0, 3])
def test_lightning_trains_and_resumes_in_mid_epoch(path, tmp_path, reuse_buffers):
    pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    wanted = loader_of(path, augment=True)
    epochs = [*copied(wanted), *copied(wanted)]
    keeping = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    module = lightning_module()()
    lightning_trainer(tmp_path, max_epochs=2, callbacks=[keeping]).fit(
        module, loader_of(path, augment=True, reuse_buffers=reuse_buffers)
    )
    assert same(module.seen, epochs)
    resumed = lightning_module()()
    saved = next(tmp_path.glob("*step=4.ckpt"))
    lightning_trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(
        resumed, loader_of(path, augment=True), ckpt_path=saved
    )
    assert same(resumed.seen, epochs[4:])
    assert torch.equal(resumed.network[1].weight, module.network[1].weight)


def test_accelerate_trains_from_a_loader_and_from_a_dataset(path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = small_network()
    model(torch.zeros(1, 3, 32, 32))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.01))
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    ours = loader_of(path, **share)
    theirs = accelerator.prepare(
        DataLoader(PackDataset(path, normalize=True), 8, shuffle=True, drop_last=True)
    )
    for loader in (ours, theirs):
        before, steps = model[1].weight.detach().clone(), 0
        for images, labels in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(images), labels))
            optimizer.step()
            steps += 1
        assert steps == 6
        assert not torch.equal(model[1].weight, before)


def test_the_trainer_of_transformers_trains_from_a_dataset(path, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))

        def forward(self, pixel_values, labels=None):
            logits = self.network(pixel_values)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collated(samples):
        images, labels = zip(*samples, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    dataset = PackDataset(path, normalize=True)
    trainer = transformers.Trainer(
        Network(), arguments, train_dataset=dataset, eval_dataset=dataset, data_collator=collated
    )
    before = trainer.evaluate()["eval_loss"]
    assert trainer.train().global_step == 14
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_data_loader_resumes_in_mid_epoch(path, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    make = dict(batch_size=8, shuffle=True, num_workers=workers)  # noqa: C408

    def begun():
        torch.manual_seed(3)
        return stateful.StatefulDataLoader(PackDataset(path, normalize=True), **make)

    original = begun()
    batches = iter(original)
    next(batches), next(batches)
    state = original.state_dict()
    rest = copied(batches)
    assert len(rest) == 5
    torch.manual_seed(9)
    resumed = stateful.StatefulDataLoader(PackDataset(path, normalize=True), **make)
    resumed.load_state_dict(state)
    assert same(copied(resumed), rest)


def test_a_batch_sampler_asks_for_whole_batches(path):
    dataset = PackDataset(path, normalize=True)
    sampler = BatchSampler(RandomSampler(dataset), 8, drop_last=False)
    sizes, seen = [], []
    for images, labels in DataLoader(dataset, sampler=sampler, batch_size=None):
        assert torch.is_tensor(labels)
        sizes.append(len(images))
        seen += [image.numpy().tobytes() for image in images]
    assert sizes == [8] * 6 + [5]
    assert len(set(seen)) == 53


def test_a_compiled_network_is_compiled_once(path):
    compiled = []

    def counting(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = small_network()
    model(torch.zeros(1, 3, 32, 32))
    fast = torch.compile(model, backend=counting)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    loader = loader_of(path, reuse_buffers=True)
    for _ in range(2):
        for images, labels in loader:
            torch.testing.assert_close(fast(images), model(images))
            optimizer.zero_grad()
            nn.functional.cross_entropy(fast(images), labels).backward()
            optimizer.step()
    assert len(compiled) == 1
