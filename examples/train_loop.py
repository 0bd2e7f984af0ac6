"""A training loop of one's own over a pack, resumable in mid-epoch: python train_loop.py photos.h5"""

import json
import sys
from pathlib import Path

import torch
from torchvision.models import mobilenet_v2

from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader

pack = open_pack(sys.argv[1])
# Batch normalization cannot train on a last batch of one image.
one_left = len(pack) > 64 and len(pack) % 64 == 1
loader = PackLoader(pack, 64, shuffle=True, augment=True, normalize=True, drop_last=one_left)
network = mobilenet_v2(num_classes=len(loader.pack.header.class_names))
optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
saved = Path("position.json")
if saved.exists():  # A real run saves the weights beside it; see edgeprune_runtime.training.
    loader.load_state_dict(json.loads(saved.read_text()))
for epoch in range(loader.state_dict()["epoch"], 3):
    loader.set_epoch(epoch)
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(network.to(images.device)(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        saved.write_text(json.dumps(loader.state_dict()))
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
