"""The text of ``robusteval --help``."""

HELP = """\
robusteval: how robust is this image classifier, and how sure are we?

usage: robusteval [GROUP=NAME ...] [KEY=VALUE ...]   evaluate; without arguments the demonstration
       robusteval -m model=a,b attack=pgd,solarize   sweep: every combination, one after the other
       robusteval -m ... hydra/launcher=slurm       jobs of Slurm; =local: processes here
       robusteval COMMAND ...

examples
  robusteval                                  PGD on a small adversarially trained MNIST net
  robusteval model=resnet50 attack=solarize   ImageNet at IMAGENET_ROOT or dataset.root=FOLDER
  robusteval model=robustbench model.name=Wang2023Better_WRN-28-10 dataset=cifar10 attack=autoattack
  robusteval model=timm model.name=convnext_tiny attack=pgd threat.eps=4/255
  robusteval model=python model.entry=mynet.py:build dataset=arrays dataset.path=own.npz

commands
  list [models|datasets|attacks|transforms]  what can be named
  summary [DIR]                   one table over the runs in a folder (--format table|csv|md)
  status [DIR]                    what is done, missing, running, failed (the same formats)
  compare RUN RUN ...             difference with interval, exact test, who wins where (--ids, --by)
  report RUN|DIR                  one HTML page of a run, or of a folder of runs
  merge RUN ... [--into DIR]      join shards of one run, or attacks on one model: the worst case
  verify RUN                      check a run's files and re-predict its adversarials
  selftest [ATTACK ...]           prove the attacks on models whose robustness is known
  leaderboard [DIR]               runs ranked with ties (--against robustbench: beside its entries)
  tune [KEY=VALUE ...]            measure the fastest form of a model
  train NET                       train the small bundled nets again; recipe=padding: others
  push RUN                        send a finished run to Weights & Biases (again)

keys (all of them: robusteval --cfg job)
  model.name=, model.entry=, model.weights=, model.mean=[..], model.sd=[..]
  dataset.root=, dataset.path=, dataset.n=500           a seeded subset
  threat=linf (usual radius), threat=linf_8_255, threat.norm=l2, threat.eps=8/255, threat.goal=top5
  'threat.eps=[0.1,0.2,0.3]'                            robust accuracy over the radius
  attack.steps=100 and the other options of the attack
  engine.slots=64, engine.stop=never, engine.mode=fast, seed=1
  checks=standard|strict|off, stop.width=0.05, stop.below=0.4, stop.above=0.4
  evidence=auto|all|none, logger=wandb|none, runtime.device=auto, runs.dir=runs, runs.fresh=true
  runtime.workers=2                                     processes on this machine
  runtime.shards=8, runtime.shard=3/8                   tasks for one evaluation; one of them
  hydra.launcher.partition=, .gpus_per_node=1, ...  of a job (all: --cfg hydra -p hydra.launcher)

A run that exists is resumed, a complete one is shown.
The last line on standard output is the run's folder.
Exit codes: 0 done, 1 failed, 2 wrong input, 75 interrupted (run the same command to go on).
ROBUSTEVAL_DEBUG=1 shows tracebacks. ROBUSTEVAL_RUNS moves the folder of the runs.
"""
